"""What RFC 9110 and RFC 9112 say must not be served, each over a real socket: refused, closed, and unseen by the application."""

from __future__ import annotations

import pytest
from tests.http1.world import SHORT, Seen, answers, is_error, serving, status, talk

from penstock.http1 import Server

HOST = b"Host: a"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def head(*lines: bytes, first: bytes = b"POST /v1/x HTTP/1.1", host: bytes = HOST) -> bytes:
    return b"\r\n".join((first, *((host,) if host else ()), *lines, b"", b""))


def target(raw: bytes, method: bytes = b"GET") -> bytes:
    return head(first=method + b" " + raw + b" HTTP/1.1")


def chunked(body: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked") + body


FRAMING = {
    "length and chunked": head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked and length": head(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n",
    "two equal lengths": head(b"Content-Length: 5", b"Content-Length: 5") + b"hello",
    "two differing lengths": head(b"Content-Length: 5", b"content-length: 6") + b"hello",
    "three transfer encodings": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked in HTTP/1.0": head(b"Transfer-Encoding: chunked", first=b"POST /x HTTP/1.0") + b"0\r\n\r\n",
}
FRAMING |= {
    f"length {value!r}": head(b"Content-Length: " + value) + b"hello"
    for value in (b"5, 5", b"+5", b"-5", b"5 5", b"0x5", b"5_0", b"", b"5;", b"\xb25", b"1e3", b"5.0", b"9" * 19, b"five", b"5,")
}
FRAMING |= {
    f"coding {value!r}": head(b"Transfer-Encoding: " + value) + b"0\r\n\r\n"
    for value in (
        b"Chunked",
        b"CHUNKED",
        b"chunked, chunked",
        b"identity",
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked;q=1",
        b"xchunked",
        b", chunked",
        b"chunked,",
        b'"chunked"',
        b"",
        b"chunked identity",
        b"chunke",
        b"cow",
        b"chunked\xa0",
    )
}

LINES = {
    "folded line": head(b"X-A: b\r\n c"),
    "line folded with a tab": head(b"X-A: b\r\n\tc"),
    "folded first line": head(b" X-A: b", host=b""),
    "folded content-length": head(b"X-A: b\r\n Content-Length: 5"),
    "space before the colon": head(b"Content-Length : 5"),
    "tab before the colon": head(b"Content-Length\t: 5"),
    "space before the colon of transfer-encoding": head(b"Transfer-Encoding : chunked"),
    "no colon": head(b"X-A b"),
    "a known name without a colon": head(b"Connection: x", b"Connection"),
    "empty name": head(b": b"),
    "name with a space": head(b"X A: b"),
    "name with a parenthesis": head(b"X(A): b"),
    "name with NUL": head(b"X\x00A: b"),
    "name with a high byte": head(b"X\xe4A: b"),
    "name with a slash": head(b"X/A: b"),
    "bare CR in a value": head(b"X-A: b\rc"),
    "bare CR before a header": head(b"X-A: b\rContent-Length: 5"),
    "bare LF in a value": head(b"X-A: b\nc"),
    "bare LF before a header": head(b"X-A: b\nContent-Length: 5"),
    "bare CR and bare LF in one value": head(b"X-A: b\rc\nd"),
    "doubled CR": head(b"X-A: b\r"),
    "NUL in a value": head(b"X-A: b\x00c"),
    "escape in a value": head(b"X-A: b\x1bc"),
    "delete in a value": head(b"X-A: b\x7fc"),
    "vertical tab in a value": head(b"X-A: b\x0bc"),
    "every line ends in LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "the head ends in LF LF": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "an LF ends the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "two authorizations": head(b"Authorization: Bearer a", b"Authorization: Bearer b"),
    "two content types": head(b"Content-Type: a/b", b"Content-Type: text/plain"),
}

HOSTS = {
    "no host": head(host=b""),
    "two equal hosts": head(b"Host: a"),
    "two hosts": head(b"host: b"),
}
HOSTS |= {
    f"host {value!r}": head(host=b"Host: " + value)
    for value in (
        b"",
        b"a/b",
        b"u@a",
        b"u:p@a",
        b"a b",
        b"a,b",
        b"a:b",
        b"a:99999",
        b"a:80:80",
        b"[::1",
        b"::1",
        b"a\\b",
        b"a?x",
        b"a#x",
        b"http://a",
        b"a%2eb",
        b"a\tb",
        b"a;b",
        b"\xe4",
        b"[::1]x",
        b"a:",
        b"[1]",
        b":80",
        b"a:+8",
        b"<a>",
        b"a" * 254,
    )
}

TARGETS = {
    f"target {value!r}": target(value)
    for value in (
        b"//",
        b"/a//b",
        b"//a",
        b"/%2e",
        b"/%2E%2E/x",
        b"/a%2fb",
        b"/a%2Fb",
        b"/%5c",
        b"/a%5Cb",
        b"\\",
        b"/a\\b",
        b"/..",
        b"/../x",
        b"/a/..",
        b"/./a",
        b"/a/.",
        b"/a/../b",
        b"/%00",
        b"/%0a",
        b"/%1F",
        b"/%7f",
        b"/%zz",
        b"/%2",
        b"/%",
        b"/a#b",
        b"/a<b",
        b'/a"b',
        b"/\xe4",
        b"a/b",
        b"*",
        b"http://b/x",
        b"http://u@a/x",
        b"http://a:80/x",
        b"ftp://a/x",
        b"http://",
        b"http:///x",
        b"http:/a",
        b"?x",
        b"http://a\\@b/x",
        b"http://a//x",
        b"http://a/../x",
        b"http://a#x",
        b"a:80",
        b"a",
        b"/?a#b",
        b"/?\xe4",
        b"/?%zz",
        b"/?<",
        b"/a{b}",
        b"/a|b",
    )
}
TARGETS |= {
    "CONNECT": target(b"a:443", b"CONNECT"),
    "CONNECT with a path": target(b"/x", b"CONNECT"),
    "asterisk for POST": target(b"*", b"POST"),
    "asterisk with more": target(b"*x", b"OPTIONS"),
}

FIRST_LINES = {
    f"first line {value!r}": head(first=value)
    for value in (
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /",
        b"GET",
        b"GET / x HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.11",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1",
        b"GET / HTTP1.1",
        b"GET / HTTPS/1.1",
        b"G(T / HTTP/1.1",
        b" / HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\r HTTP/1.1",
        b"GET / HTTP/1.1\r",
        b"G\xe4T / HTTP/1.1",
        b"GET / HTTP/1,1",
        b"GET / HTTP/1.x",
        b"\x00GET / HTTP/1.1",
        b"\xef\xbb\xbfGET / HTTP/1.1",
    )
}
FIRST_LINES |= {
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "three empty lines": b"\r\n\r\n\r\n" + target(b"/"),
    "a bare LF first": b"\n" + target(b"/"),
    "a bare CR first": b"\r" + target(b"/"),
}

CHUNKS = {
    f"chunked {value!r}": chunked(value)
    for value in (
        b"\r\nhello\r\n0\r\n\r\n",
        b"g\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t;a\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"F" * 17 + b"\r\n",
        b"f" * 16 + b"\r\n",
        b"1" + b"0" * 16 + b"\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5;" + b"a" * 300,
        b"5;a\x00b\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"0\r\nX y\r\n\r\n",
        b"0\r\nX: y\r\n z\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nX: y\n\r\n\r\n",
        b"0\r\n\nX: y\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"5\r\nhello\r\n\r\n",
        b"5_0\r\n",
        b"\xb2\r\n",
        b"1\r\na\r\n" * 1200,
        (b"1;" + b"e" * 200 + b"\r\na\r\n") * 30,
        b"0\r\nHost: b\r\nHost: c\r\n\r\n",
        b"0\r\n\rX\r\n\r\n",
        b"x" * 400,
    )
}

BAD = FRAMING | LINES | HOSTS | TARGETS | FIRST_LINES | CHUNKS

OTHERS = {
    "HTTP/2.0": (505, head(first=b"GET / HTTP/2.0")),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/1.2": (505, head(first=b"GET / HTTP/1.2")),
    "HTTP/0.9": (505, head(first=b"GET / HTTP/0.9")),
    "HTTP/3.0": (505, head(first=b"GET / HTTP/3.0")),
    "long target": (414, target(b"/" + b"a" * 300)),
    "long target without an end": (414, b"GET /" + b"a" * 300),
    "long method": (414, b"A" * 300),
    "long header line": (431, head(b"X-A: " + b"b" * 600)),
    "long headers": (431, head(*[b"X-%d: " % n + b"b" * 300 for n in range(4)])),
    "long headers without an end": (431, head(b"X-A: b")[:-2] + b"X-B: " + b"b" * 1_200),
    "many headers": (431, head(*[b"X-%d: b" % n for n in range(16)])),
    "a length over the limit": (413, head(b"Content-Length: 4097")),
    "a length far over the limit": (413, head(b"Content-Length: " + b"9" * 18)),
    "a length over the limit, expecting": (413, head(b"Content-Length: 4097", b"Expect: 100-continue")),
    "a chunk over the limit": (413, chunked(b"1001\r\n")),
    "chunks over the limit": (413, chunked(b"800\r\n" + b"a" * 2_048 + b"\r\n" + b"801\r\n")),
    "a chunk as large as can be written": (413, chunked(b"f" * 15 + b"\r\n")),
    "long trailers": (431, chunked(b"0\r\nX: " + b"y" * 1_100)),
    "many trailers": (431, chunked(b"0\r\n" + b"X: y\r\n" * 17 + b"\r\n")),
    "unknown expectation": (417, head(b"Expect: 200-ok", b"Content-Length: 0")),
    "one more expectation": (417, head(b"Expect: 100-continue, x", b"Content-Length: 0")),
    "empty expectation": (417, head(b"Expect:", b"Content-Length: 0")),
}

CASES = {name: (400, raw) for name, raw in BAD.items()} | OTHERS


@pytest.mark.parametrize("name", CASES)
def test_malformed_request_is_refused_and_closed_and_never_seen(name: str) -> None:
    expected, raw = CASES[name]
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        answer = await talk(port, raw, NEXT)
        assert status(answer) == expected
        assert is_error(answer)
        assert answers(answer) == 1
        assert sum(server.refusals.values()) == 1

    serving(test, seen)
    assert seen == []


def test_two_hundred_kinds_of_malformed_requests_are_tried() -> None:
    assert len(CASES) >= 200


def test_what_came_before_a_malformed_request_is_answered_first() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        answer = await talk(port, target(b"/good") + LINES["bare LF in a value"] + NEXT)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"HTTP/1.1 400 Bad Request\r\n" in answer
        assert answers(answer) == 2

    serving(test, seen)
    assert [path for _, path, _, _ in seen] == ["/good"]


def test_bytes_behind_the_last_request_are_ignored() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        answer = await talk(port, head(b"Connection: close", first=b"GET /last HTTP/1.1") + NEXT, NEXT)
        assert answers(answer) == 1
        assert b"\r\nconnection: close\r\n" in answer

    serving(test, seen)
    assert [path for _, path, _, _ in seen] == ["/last"]


@pytest.mark.parametrize(
    ("host", "served"), [(b"a", True), (b"A:80", True), (b"b:8080", True), (b"b", False), (b"c", False), (b"b:1", False)]
)
def test_only_listed_hosts_are_served(host: bytes, served: bool) -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        answer = await talk(port, head(b"Connection: close", first=b"GET / HTTP/1.1", host=b"Host: " + host))
        assert status(answer) == (200 if served else 421)

    serving(test, seen, hosts=("a", "b:8080"))
    assert len(seen) == served


def test_a_request_without_host_is_not_served_where_hosts_are_listed() -> None:
    async def test(port: int, server: Server) -> None:
        assert status(await talk(port, b"GET / HTTP/1.0\r\n\r\n")) == 421

    serving(test, Seen(), hosts=("a",))


@pytest.mark.parametrize("name", ["HTTP/2.0", "a length over the limit", "long target"])
def test_refusals_carry_the_stamp(name: str) -> None:
    async def test(port: int, server: Server) -> None:
        assert b"\r\nx-request-id: 7\r\n" in await talk(port, CASES[name][1])

    serving(test, Seen(), SHORT, stamp=lambda: b"x-request-id: 7\r\n")
