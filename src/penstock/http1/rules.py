"""What RFC 9110 and RFC 9112 allow in a message head, and nothing beyond it.

Law: pure functions over text. Each raises CallError (status, code, message) for what it refuses; nothing is repaired, because two
parsers that repair differently are how requests are smuggled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.errors import CallError

PRINTABLE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""Bytes allowed in a head beside CR and LF: HTAB, SP, VCHAR and obs-text (RFC 9110, 5.5)."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DIGITS = re.compile(r"[0-9]{1,18}")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]{0,45}\])(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?#@\\]+)(.*)")
_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")

_PCHAR = r"[A-Za-z0-9\-._~!$&'()*+,;=:@]"
# Encoded dots, slashes, backslashes and controls are refused: whoever decodes them later would see another path than was authorised.
_ESCAPE = r"%(?!2[eEfF]|5[cC]|[01]|7[fF])[0-9A-Fa-f]{2}"
_PATH = re.compile(rf"(?:/(?!/|\.\.?(?:/|$))(?:{_PCHAR}|{_ESCAPE})*)+")
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]{}|]|%[0-9A-Fa-f]{2})*")

SINGLE = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "origin",
        "proxy-authorization",
        "range",
        "transfer-encoding",
        "x-api-key",
        "x-request-id",
    }
)
"""Fields that mean one thing: a second one is an attempt to be read in two ways."""

_NAMES_MAX = 1_024
_names: dict[str, str] = {}
"""Names that were found good, and their lower case."""
_FIRSTS_MAX, _FIRST_LENGTH = 64, 128
_firsts: dict[str, tuple[str, str | None, str, str, bool]] = {}
"""First lines that were found good, and what they say: callers repeat a few."""


def refuse(message: str, status: int = 400, code: str = "bad_request") -> CallError:
    return CallError(status, code, message)


def too_large(message: str) -> CallError:
    return CallError(431, "headers_too_large", message)


def only_printable(section: bytes, line_ends: int) -> None:
    """Refuse controls, NUL, bare CR and bare LF: what is left of the section must be its line ends and no byte more."""
    if len(section.translate(None, PRINTABLE)) != 2 * line_ends:
        raise refuse("The message head holds a control character, or a CR or LF that is not a line's end.")


def field_name(name: str) -> str:
    """The name in lower case. RFC 9112, 5.1: no whitespace before the colon, no folded line, only token characters."""
    if not _TOKEN.fullmatch(name):
        raise refuse("A header line is not `name: value`.")
    lower = name.lower()
    if len(_names) < _NAMES_MAX:
        _names[name] = lower
    return lower


def fields(lines: Iterable[str]) -> dict[str, str]:
    """Header lines as a dict by lower-case name; repeated list fields are joined, repeated single ones refused."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = _names.get(name) or field_name(name)
        if not colon:
            raise refuse("A header line has no colon.")
        value = value.strip(" \t")
        if key in found:
            if key in SINGLE:
                raise refuse(f"The header {key} is given more than once.")
            value = f"{found[key]}{'; ' if key == 'cookie' else ', '}{value}"
        found[key] = value
    return found


def body_length(headers: dict[str, str], old: bool) -> int | None:
    """Bytes of body that follow by the framing headers: -1 for chunked, None when neither header is there (RFC 9112, 6)."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None:
            raise refuse("Content-Length and Transfer-Encoding exclude each other.")
        if old:
            raise refuse("HTTP/1.0 has no Transfer-Encoding.")
        if coding != "chunked":
            raise refuse("Transfer-Encoding must be exactly `chunked`.")
        return -1
    if length is None:
        return None
    if not _DIGITS.fullmatch(length):
        raise refuse("Content-Length must be a decimal number.")
    return int(length)


def authority(value: str) -> str:
    """A Host value in lower case; host[:port] without userinfo, path or whitespace (RFC 9112, 3.2)."""
    match = _HOST.fullmatch(value)
    if not match or int(match[1] or 0) > 65_535:
        raise refuse("Host must be a host name or address with an optional port.", code="bad_host")
    return value.lower()


def target(method: str, raw: str) -> tuple[str | None, str, str]:
    """A request target as (authority or None, path, query). Absolute-form is the only one with an authority."""
    if method == "CONNECT":
        raise refuse("CONNECT is not served.", code="bad_target")
    if raw == "*" and method == "OPTIONS":
        return None, "*", ""
    named = None
    if raw[:1] != "/":
        match = _ABSOLUTE.fullmatch(raw)
        if not match:
            raise refuse("The request target must be an absolute path.", code="bad_target")
        named, raw = authority(match[1]), match[2]
        if raw[:1] != "/":
            raw = "/" + raw
    path, _, query = raw.partition("?")
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        raise refuse("The path holds empty or dot segments, encoded separators or characters that need encoding.", code="bad_target")
    return named, path, query


def first_line(line: str) -> tuple[str, str | None, str, str, bool]:
    """A request's (method, authority or None, path, query, whether HTTP/1.0)."""
    known = _firsts.get(line)
    if known is not None:
        return known
    method, asked, old = request_line(line)
    read = (method, *target(method, asked), old)
    if len(_firsts) < _FIRSTS_MAX and len(line) <= _FIRST_LENGTH:
        _firsts[line] = read
    return read


def request_line(line: str) -> tuple[str, str, bool]:
    """(method, target, whether HTTP/1.0); exactly two single spaces (RFC 9112, 3)."""
    parts = line.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1] or not _VERSION.fullmatch(parts[2]):
        raise refuse("The request line is not `METHOD target HTTP/1.1`.")
    if parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise refuse("Only HTTP/1.1 and HTTP/1.0 are served.", 505, "bad_version")
    return parts[0], parts[1], parts[2] == "HTTP/1.0"


def status_line(line: str) -> tuple[int, bool]:
    """(status, whether HTTP/1.0) of an answer."""
    match = _STATUS.fullmatch(line)
    if not match:
        raise refuse("The status line is not `HTTP/1.1 NNN reason`.")
    return int(match[2]), match[1] == "0"
