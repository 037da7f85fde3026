"""The server under load: its address, the head of every call, and the first look at it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import msgspec

from penstock.config import Limits
from penstock.errors import PenstockError
from penstock.facts import Failure
from penstock.http1.client import Upstream
from penstock.load.answer import error_message

_SUFFIX = "/chat/completions"
_CONNECT_S = 10.0


class Unreachable(PenstockError):
    """Nothing answered, or what answered will not serve us."""


class _Model(msgspec.Struct):
    id: str = ""


class _Models(msgspec.Struct):
    data: list[_Model] = []


def _split(url: str) -> SplitResult:
    """Raises PenstockError for what is not a plain address of a server."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise PenstockError(f"--url {url}: not an address like http://127.0.0.1:8080")
    return parts


class Target:
    """Where calls go. `url` is a server's root, its `/v1`, or its chat completions."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = _split(url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        path = parts.path.rstrip("/").removesuffix(_SUFFIX)
        self._base = path if path.endswith("/v1") else path + "/v1"
        if key is not None and not (key.isascii() and key.isprintable()):
            raise PenstockError("--key: a key is printable ASCII")
        credentials = f"authorization: Bearer {key}\r\n" if key else ""
        self._headers = f"host: {parts.netloc}\r\nuser-agent: penstock-bench\r\n{credentials}"

    def call_head(self) -> bytes:
        return f"POST {self._base}{_SUFFIX} HTTP/1.1\r\n{self._headers}content-type: application/json\r\n".encode()

    def models_head(self) -> bytes:
        return f"GET {self._base}/models HTTP/1.1\r\n{self._headers}".encode()


class _Look:
    """Receives the answer to one question."""

    def __init__(self, answered: asyncio.Future[tuple[int, bytes]]) -> None:
        self._answered = answered
        self._status, self._body = 0, b""

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_end(self) -> None:
        if not self._answered.done():
            self._answered.set_result((self._status, self._body))

    def on_failure(self, failure: Failure, detail: str) -> None:
        if not self._answered.done():
            self._answered.set_exception(Unreachable(f"no answer ({failure.value}{': ' + detail if detail else ''})"))


def connect(target: Target, timeout_s: float) -> Upstream:
    """A pool without a bound: an open loop never waits for a connection to come free."""
    limits = Limits(connect_s=min(_CONNECT_S, timeout_s), first_byte_s=timeout_s, idle_s=timeout_s, stream_s=timeout_s)
    return Upstream(target.origin, limits)


async def look(target: Target, upstream: Upstream, model: str | None) -> str:
    """Asks for the served models, so that a wrong address or key shows before the load; returns the model to ask for.

    Raises Unreachable when nothing answers, when the key is refused, or when no model is known.
    """
    answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
    call = upstream.request(target.models_head(), b"", _Look(answered))
    try:
        async with asyncio.timeout(15):
            status, body = await answered
    except TimeoutError:
        call.cancel()
        raise Unreachable(f"{target.origin}: no answer within 15 s") from None
    except Unreachable as error:
        raise Unreachable(f"{target.origin}: {error}") from None
    if status in (401, 403):
        raise Unreachable(f"{target.origin}: {status}: {error_message(body)} (--key gives the key)")
    return model or _first_model(target, status, body)


def _first_model(target: Target, status: int, body: bytes) -> str:
    try:
        models = msgspec.json.decode(body, type=_Models).data if status == 200 else []
    except msgspec.MsgspecError:
        models = []
    if not models or not models[0].id:
        raise Unreachable(f"{target.origin}: it lists no models (status {status}): name one with --model")
    return models[0].id
