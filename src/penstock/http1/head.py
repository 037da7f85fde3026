"""A message's head, parsed once and immutable. Its raw bytes are kept, so that the next equal head on a connection costs a comparison.

Law: pure; raises CallError for what `rules` refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from penstock.config import Limits
from penstock.errors import CallError
from penstock.http1 import rules

BodyBytes = Callable[[str, str, str | None], int]
"""From method, path and Authorization to the bytes that a body may have."""

END = b"\r\n\r\n"
CHUNKED = -1
UNTIL_CLOSE = -2


class RequestHead:
    __slots__ = ("after", "before", "expects", "headers", "keep_alive", "length", "method", "most", "old", "path", "query", "raw", "size")

    def __init__(
        self,
        raw: bytes,
        size: int,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        length: int,
        keep_alive: bool,
        old: bool,
        expects: bool,
        before: bytes = b"",
        after: bytes = b"",
        most: int = 0,
    ) -> None:
        self.raw = raw
        """With the empty line at its end."""
        self.size = size
        """Bytes of the whole request; -1 when it is chunked."""
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.length = length
        """Bytes of body, or CHUNKED."""
        self.keep_alive = keep_alive
        self.old = old
        """HTTP/1.0."""
        self.expects = expects
        """The caller waits for 100 Continue."""
        self.before = before
        """`raw` up to the digits of content-length; empty when there is none."""
        self.after = after
        """`raw` from behind them."""
        self.most = most
        """Bytes that its body may have."""


class AnswerHead:
    __slots__ = ("headers", "keep_alive", "length", "raw", "status")

    def __init__(self, raw: bytes, status: int, headers: Mapping[str, str], length: int, keep_alive: bool) -> None:
        self.raw = raw
        self.status = status
        self.headers = headers
        self.length = length
        """Bytes of body, CHUNKED or UNTIL_CLOSE."""
        self.keep_alive = keep_alive


NO_REQUEST = RequestHead(b"", -1, "", "", "", {}, 0, True, False, False)
NO_ANSWER = AnswerHead(b"", 0, {}, 0, True)


def request(raw: bytes, limits: Limits, hosts: frozenset[str] = frozenset(), body_bytes: BodyBytes | None = None) -> RequestHead:
    """Parse a whole request head, its empty line included. `body_bytes` is asked how large a body may be that is larger than most."""
    lines = _lines(raw, limits, 414)
    method, named, path, query, old = rules.first_line(lines[0])
    headers = rules.fields(lines[1:])
    _check_host(headers.get("host"), named, old, hosts)
    length = rules.body_length(headers, old) or 0
    most = limits.body_bytes
    if body_bytes is not None and not 0 <= length <= most:
        most = body_bytes(method, path, headers.get("authorization"))
    if length > most:
        raise rules.refuse(f"The body is larger than {most} bytes.", 413, "body_too_large")
    expects = _expects(headers, old)
    size = len(raw) + length if length >= 0 else -1
    before, after = _around_length(raw, headers)
    return RequestHead(raw, size, method, path, query, headers, length, _keeps(headers, old), old, expects, before, after, most)


def resized(head: RequestHead, data: bytes, at: int, limits: Limits) -> RequestHead | None:
    """The head at `at` if it differs from a good one in nothing but content-length, and is no longer: the common case of a caller's
    next request, at a tenth of a parse. None leaves the judgement to `request`."""
    if not data.startswith(head.before, at):
        return None
    start = at + len(head.before)
    end = len(head.raw) - len(head.after) + at
    end = data.find(b"\r", start, end + 1)
    if end < 0:
        return None
    digits = data[start:end]
    if not digits.isdigit() or not data.startswith(head.after, end):
        return None
    length = int(digits)
    if length > limits.body_bytes:
        return None
    raw = data[at : end + len(head.after)]
    headers = {**head.headers, "content-length": digits.decode()}
    kept = (head.keep_alive, head.old, head.expects, head.before, head.after, limits.body_bytes)
    return RequestHead(raw, len(raw) + length, head.method, head.path, head.query, headers, length, *kept)


def answer(raw: bytes, limits: Limits, bodyless: bool) -> AnswerHead:
    """Parse a whole answer head. `bodyless`: the request was HEAD."""
    lines = _lines(raw, limits, 431)
    status, old = rules.status_line(lines[0])
    headers = rules.fields(lines[1:])
    framed = rules.body_length(headers, old)
    length = UNTIL_CLOSE if framed is None else framed
    if bodyless or status < 200 or status in (204, 304):
        length = 0
    return AnswerHead(raw, status, headers, length, not old and length != UNTIL_CLOSE and _keeps(headers, old))


def error_body(error: CallError) -> bytes:
    """An error in OpenAI's shape, for what never reaches the application."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return msgspec.json.encode({"error": {"message": error.message, "type": kind, "param": error.field, "code": error.code}})


def unfinished(data: bytes, limits: Limits) -> None:
    """Refuse a head that cannot become a good one, before its end came: too long, or already malformed."""
    ends = data.count(b"\r\n")
    stray = len(data.translate(None, rules.PRINTABLE)) - 2 * ends
    if stray and not (stray == 1 and data.endswith(b"\r")):
        rules.only_printable(data, ends)
    line = data.find(b"\r\n")
    if line > limits.request_line_bytes or (line < 0 and len(data) > limits.request_line_bytes + 1):
        raise rules.refuse("The first line is too long.", 414, "target_too_long")
    # Two bytes of the empty line may already be among them.
    if line >= 0 and len(data) - line > limits.headers_bytes + 4:
        raise rules.too_large(f"The headers are larger than {limits.headers_bytes} bytes.")


def _lines(raw: bytes, limits: Limits, first_status: int) -> list[str]:
    """The head's lines, after every check that needs no meaning."""
    section = raw[:-4]
    lines = section.decode("latin-1").split("\r\n")
    rules.only_printable(section, len(lines) - 1)
    first = len(lines[0])
    if first > limits.request_line_bytes:
        if first_status == 414:
            raise rules.refuse("The first line is too long.", 414, "target_too_long")
        raise rules.too_large("The first line is too long.")
    if len(lines) - 1 > limits.headers:
        raise rules.too_large(f"More than {limits.headers} headers.")
    rest = len(section) - first
    if rest > limits.headers_bytes:
        raise rules.too_large(f"The headers are larger than {limits.headers_bytes} bytes.")
    if rest > limits.header_line_bytes and max(map(len, lines[1:])) > limits.header_line_bytes:
        raise rules.too_large(f"A header line is longer than {limits.header_line_bytes} bytes.")
    return lines


def _around_length(raw: bytes, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    digits = headers.get("content-length")
    if digits is None:
        return b"", b""
    # Lower case changes no length, and the name cannot stand at a line's start twice.
    name = raw.find(b"\r\nContent-Length:")
    if name < 0:
        name = raw.lower().find(b"\r\ncontent-length:")
    start = raw.index(digits.encode(), name + 17)
    return raw[:start], raw[start + len(digits) :]


def _check_host(host: str | None, named: str | None, old: bool, hosts: frozenset[str]) -> None:
    if host is None:
        if not old:
            raise rules.refuse("HTTP/1.1 requires a Host header.", code="bad_host")
        if not hosts:
            return
        host = ""
    else:
        host = rules.authority(host)
    if named is not None and named != host:
        raise rules.refuse("The request target and Host name different hosts.", code="bad_host")
    if hosts and host not in hosts and host.rpartition(":")[0] not in hosts:
        raise rules.refuse("This host is not served here.", 421, "wrong_host")


def _keeps(headers: Mapping[str, str], old: bool) -> bool:
    value = headers.get("connection")
    if value is None:
        return not old
    tokens = [token.strip(" \t").lower() for token in value.split(",")]
    return "close" not in tokens and (not old or "keep-alive" in tokens)


def _expects(headers: Mapping[str, str], old: bool) -> bool:
    value = headers.get("expect")
    if value is None or old:  # RFC 9110, 10.1.1: a 1.0 client cannot have meant it.
        return False
    if value.lower() != "100-continue":
        raise rules.refuse("Only the expectation 100-continue is met.", 417, "expectation_failed")
    return True
