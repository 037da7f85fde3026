"""The lines of OpenAI's batch files: requests in, answers and errors out."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from penstock.errors import CallError
from penstock.facts import Route

ENDPOINTS = {
    "/v1/chat/completions": Route.CHAT,
    "/v1/completions": Route.COMPLETIONS,
    "/v1/embeddings": Route.EMBEDDINGS,
}
CUSTOM_ID_LENGTH = 512


class Line(msgspec.Struct, frozen=True, gc=False):
    """A request of a batch."""

    custom_id: str
    body: bytes


class _Line(msgspec.Struct, gc=False):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: Raw = Raw()


_LINE = msgspec.json.Decoder(_Line)


def read(data: bytes, endpoint: str) -> Line:
    """Raises CallError with OpenAI's code, the field, and what it must be."""
    try:
        data.decode()
        line = _LINE.decode(data)
    except UnicodeDecodeError:
        raise CallError(400, "invalid_json_line", "This line is not UTF-8.") from None
    except (msgspec.MsgspecError, RecursionError):
        raise CallError(400, "invalid_json_line", "This line is not a JSON object.") from None
    custom_id = line.custom_id
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_LENGTH:
        raise CallError(
            400, "missing_required_parameter", f"'custom_id' must be text of 1 to {CUSTOM_ID_LENGTH} characters.", field="custom_id"
        )
    if line.method != "POST":
        raise CallError(400, "invalid_method", "'method' must be POST.", field="method")
    if line.url != endpoint:
        raise CallError(400, "mismatched_url", f"'url' must be the endpoint of the batch, {endpoint}.", field="url")
    body = bytes(line.body)
    if not body.startswith(b"{"):
        raise CallError(400, "missing_required_parameter", "'body' must be the request, a JSON object.", field="body")
    return Line(custom_id, body)


def embedded(body: bytes) -> Raw | str | None:
    """An answer's body as a value in a JSON document: itself where it is JSON, its text where it is not."""
    if not body:
        return None
    try:
        body.decode()
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
    # Between values they are white space, and inside of one JSON has none: a line of JSONL stays a line.
    return Raw(body.replace(b"\r", b" ").replace(b"\n", b" "))


def answered(id: str, custom_id: str, request_id: str, status: int, body: bytes) -> bytes:
    """A line of an output or error file, for a request that an engine answered."""
    response = {"status_code": status, "request_id": request_id, "body": embedded(body)}
    return msgspec.json.encode({"id": id, "custom_id": custom_id, "response": response, "error": None}) + b"\n"


def unanswered(id: str, custom_id: str, code: str, message: str) -> bytes:
    """A line of an error file, for a request that none answered."""
    error = {"code": code, "message": message}
    return msgspec.json.encode({"id": id, "custom_id": custom_id, "response": None, "error": error}) + b"\n"
