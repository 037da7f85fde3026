"""Answers of nodes that are malformed, hostile or merely odd, each over a real socket."""

from __future__ import annotations

import pytest
from tests.http1.node import Got, Node, asking
from tests.http1.world import SHORT, until

from penstock.facts import Failure
from penstock.http1 import Upstream

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
END = b"\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

PROTOCOL = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "lower-case version": b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\ncontent-length: 0\r\n\r\n",
    "status with a sign": b"HTTP/1.1 +20 OK\r\ncontent-length: 0\r\n\r\n",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n",
    "reason with NUL": b"HTTP/1.1 200 O\x00K\r\ncontent-length: 0\r\n\r\n",
    "empty line first": b"\r\n" + OK + b"content-length: 0\r\n\r\n",
    "length and chunked": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two equal lengths": OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "two differing lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "length list": OK + b"content-length: 5, 5\r\n\r\nhello",
    "length with a sign": OK + b"content-length: +5\r\n\r\nhello",
    "negative length": OK + b"content-length: -5\r\n\r\nhello",
    "hexadecimal length": OK + b"content-length: 0x5\r\n\r\nhello",
    "empty length": OK + b"content-length:\r\n\r\nhello",
    "length that overflows": OK + b"content-length: 18446744073709551621\r\n\r\nhello",
    "other coding": OK + b"transfer-encoding: gzip\r\n\r\nhello",
    "two codings": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity coding": OK + b"transfer-encoding: identity\r\n\r\nhello",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "length and chunked of 204": b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    "folded header": OK + b"x-a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
    "space before the colon": OK + b"content-length : 0\r\n\r\n",
    "header without a colon": OK + b"content-length 0\r\n\r\n",
    "header without a name": OK + b": x\r\n\r\n",
    "bare LF": OK + b"x-a: b\ncontent-length: 0\r\n\r\n",
    "bare LF in an unfinished head": OK + b"x-a: b\nc",
    "bare CR": OK + b"x-a: b\rc\r\ncontent-length: 0\r\n\r\n",
    "NUL in a value": OK + b"x-a: \x00\r\ncontent-length: 0\r\n\r\n",
    "header line too long": OK + b"x-a: " + b"b" * 600 + b"\r\n\r\n",
    "headers too large": OK + b"".join(b"x-%d: %b\r\n" % (n, b"b" * 300) for n in range(4)) + END,
    "headers without end": OK + b"x-a: " + b"b" * 4_000,
    "too many headers": OK + b"".join(b"x-%d: b\r\n" % n for n in range(17)) + END,
    "status line too long": b"HTTP/1.1 200 " + b"O" * 300 + b"\r\ncontent-length: 0\r\n\r\n",
    "status line without end": b"HTTP/1.1 200 " + b"O" * 1_000,
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    "flood of interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50 + OK + b"content-length: 0\r\n\r\n",
    "interim answer with two lengths": b"HTTP/1.1 100 Continue\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"
    + OK
    + b"content-length: 0\r\n\r\n",
    "chunk without a size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk size not hexadecimal": CHUNKED + b"g\r\nhello\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size that overflows": CHUNKED + b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n",
    "chunk size with a space": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "chunk ended by LF": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "chunk size ended by LF": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "endless chunk extension": CHUNKED + b"5;" + b"a" * 1_000,
    "malformed trailer": CHUNKED + b"5\r\nhello\r\n0\r\nx y\r\n\r\n",
    "endless trailers": CHUNKED + b"0\r\n" + b"x: y\r\n" * 1_000,
}

RESET = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "half a head": OK + b"content-le",
    "half a body": OK + b"content-length: 10\r\n\r\nhello",
    "no body": OK + b"content-length: 10\r\n\r\n",
    "half a chunk": CHUNKED + b"a\r\nhello",
    "no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "half a last chunk": CHUNKED + b"5\r\nhello\r\n0\r\n",
    "an interim answer only": b"HTTP/1.1 100 Continue\r\n\r\n",
}

ENDS: dict[str, tuple[bytes, int, bytes, bool]] = {
    # status, body, whether the connection is used again
    "length": (OK + b"content-length: 5\r\n\r\nhello", 200, b"hello", True),
    "empty": (OK + b"content-length: 0\r\n\r\n", 200, b"", True),
    "chunked": (CHUNKED + b"5\r\nhello\r\n6;a=b\r\n there\r\n0\r\nx-sum: 1\r\n\r\n", 200, b"hello there", True),
    "empty and chunked": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b"", True),
    "redirect": (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n", 302, b"", True),
    "no reason": (b"HTTP/1.1 500\r\ncontent-length: 2\r\n\r\nno", 500, b"no", True),
    "interim answers first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 2\r\n\r\nhi",
        200,
        b"hi",
        True,
    ),
    "closing": (OK + b"content-length: 5\r\nconnection: close\r\n\r\nhello", 200, b"hello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello", False),
    "a second answer behind it": (OK + b"content-length: 5\r\n\r\nhello" + OK + b"content-length: 4\r\n\r\nevil", 200, b"hello", False),
    "bytes behind the last chunk": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", 200, b"hello", False),
    "bytes behind no content": (b"HTTP/1.1 204 No Content\r\n\r\nevil", 204, b"", False),
}


@pytest.mark.parametrize("name", PROTOCOL)
def test_malformed_answer_is_a_protocol_failure_and_closes(name: str) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.PROTOCOL
        await until(lambda: not upstream.connections)

    asking(test, PROTOCOL[name])


@pytest.mark.parametrize("name", RESET)
def test_answer_cut_short_is_a_reset(name: str) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.RESET
        assert not upstream.connections

    asking(test, RESET[name], closes=True)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_good_answer_is_given_whole_and_its_connection_used_again_if_it_may(name: str, single: bool) -> None:
    raw, status, body, again = ENDS[name]

    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert (got.failure, got.status, got.body) == (None, status, body)
        if again:
            assert upstream.idle == 1
        else:
            await until(lambda: not upstream.connections)
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert (got.failure, got.status, got.body) == (None, status, body)
        assert node.accepted == (1 if again else 2)

    asking(test, raw, single=single)


@pytest.mark.parametrize("single", [False, True])
def test_an_answer_without_a_length_ends_with_the_connection(single: bool) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert (got.failure, got.body) == (None, b"hello")
        assert not upstream.idle

    asking(test, OK + b"x-a: b\r\n\r\nhello", closes=True, single=single)


def test_a_head_request_has_no_body_whatever_the_length_says() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        for method, body in ((b"HEAD", b""), (b"HEAD", b""), (b"GET", b"hello"), (b"HEAD", b"")):
            got = Got()
            node.answer = OK + b"content-length: 5\r\n\r\n" + body
            upstream.request(method + b" / HTTP/1.1\r\nhost: a\r\n", b"", got)
            await got.wait()
            assert (got.failure, got.body, got.headers["content-length"]) == (None, body, "5")
        assert node.accepted == 1

    asking(test, b"")


def test_bytes_on_an_idle_connection_close_it() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert upstream.idle == 1
        node.writers[0].write(OK + b"content-length: 4\r\n\r\nevil")
        await until(lambda: not upstream.connections)
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert (got.failure, got.body) == (None, b"hello")

    asking(test, OK + b"content-length: 5\r\n\r\nhello")


def test_an_answer_that_overtakes_its_request_is_given_and_the_connection_not_used_again() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        node.early = True
        got = Got()
        upstream.request(b"POST / HTTP/1.1\r\nhost: a\r\n", bytes(20_000_000), got)
        await got.wait()
        assert (got.failure, got.status) == (None, 413)
        await until(lambda: not upstream.connections)

    asking(test, b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n", SHORT)
