"""How an answer is framed on the wire, for each kind of caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.http1.world import JSON, SHORT, Tape

from penstock.http1 import Exchange, Server
from penstock.http1.connection import Connection

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"


def exchange(raw: bytes, answer: Callable[[Exchange], None] = lambda _: None) -> tuple[Exchange, Tape]:
    """What the caller of `raw` gets from an application that answers so."""
    got: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        got.append(exchange)
        answer(exchange)

    connection, tape = Connection(Server(app, SHORT)), Tape()
    connection.connection_made(tape)
    connection.data_received(raw)
    return got[0], tape


def whole(exchange: Exchange) -> None:
    exchange.respond(200, JSON, b"{}")


def streamed(exchange: Exchange) -> None:
    exchange.start(200, JSON)
    exchange.send(b"hello")
    exchange.send(b"")
    exchange.send(b" there")
    exchange.end()


def counted(exchange: Exchange) -> None:
    exchange.start(200, JSON, 5)
    exchange.send(b"hel")
    exchange.end(b"lo")


def ended(exchange: Exchange) -> None:
    exchange.start(200, JSON)
    exchange.end(b"hi")


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CASES: dict[str, tuple[bytes, Callable[[Exchange], None], bytes, bool]] = {
    "whole": (GET, whole, OK + b"content-length: 2\r\n\r\n{}", False),
    "whole, closing": (CLOSING, whole, OK + b"content-length: 2\r\nconnection: close\r\n\r\n{}", True),
    "whole, 1.0": (OLD, whole, OK + b"content-length: 2\r\nconnection: close\r\n\r\n{}", True),
    "whole, 1.0 kept": (OLD_KEPT, whole, OK + b"content-length: 2\r\nconnection: keep-alive\r\n\r\n{}", False),
    "whole, HEAD": (HEAD, whole, OK + b"content-length: 2\r\n\r\n", False),
    "streamed": (GET, streamed, OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n", False),
    "streamed, 1.0": (OLD, streamed, OK + b"connection: close\r\n\r\nhello there", True),
    "streamed, 1.0 kept": (OLD_KEPT, streamed, OK + b"connection: close\r\n\r\nhello there", True),
    "streamed, HEAD": (HEAD, streamed, OK + b"\r\n", False),
    "counted": (GET, counted, OK + b"content-length: 5\r\n\r\nhello", False),
    "counted, HEAD": (HEAD, counted, OK + b"content-length: 5\r\n\r\n", False),
    "last bytes with the end": (GET, ended, OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", False),
    "no content": (GET, lambda exchange: exchange.respond(204, b"", b""), b"HTTP/1.1 204 No Content\r\n\r\n", False),
    "unknown status": (GET, lambda exchange: exchange.respond(599, b"", b""), b"HTTP/1.1 599 Status\r\ncontent-length: 0\r\n\r\n", False),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_framed_for_their_caller(name: str) -> None:
    raw, answer, expected, closes = CASES[name]
    got, tape = exchange(raw, answer)
    assert tape.written == expected
    assert got.closed
    assert tape.closed is closes


def test_more_bytes_than_declared_are_not_sent_and_cut_the_connection() -> None:
    got, tape = exchange(GET)
    got.start(200, b"", 3)
    got.send(b"hello")
    assert tape.closed
    assert tape.written.endswith(b"\r\n\r\n")


def test_fewer_bytes_than_declared_cut_the_connection() -> None:
    got, tape = exchange(GET)
    got.start(200, b"", 8)
    got.end(b"hello")
    assert tape.closed


def test_an_end_without_a_start_cuts_the_connection() -> None:
    got, tape = exchange(GET)
    got.end()
    assert tape.closed
    assert tape.written == b""


def test_an_aborted_stream_has_no_last_chunk() -> None:
    got, tape = exchange(GET)
    got.start(200, b"")
    got.send(b"hello")
    got.abort()
    assert tape.closed
    assert tape.written.endswith(b"5\r\nhello\r\n")


def test_after_the_end_nothing_is_written() -> None:
    got, tape = exchange(GET, whole)
    before = tape.written
    got.respond(500, b"", b"")
    got.start(500, b"")
    got.send(b"x")
    got.end()
    got.abort()
    assert tape.written == before
    assert not tape.closed


def test_a_started_answer_cannot_become_another() -> None:
    got, tape = exchange(GET)
    got.start(200, b"")
    before = tape.written
    got.respond(500, b"", b"")
    got.start(500, b"")
    assert tape.written == before


def test_an_application_that_fails_is_answered_for_and_reported() -> None:
    async def test() -> None:
        reports: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

        def broken(exchange: Exchange) -> None:
            if exchange.path == "/begun":
                exchange.start(200, b"")
            raise KeyError("bug")

        server = Server(broken, SHORT)
        await server.listen("127.0.0.1", 0)
        for path, expected in ((b"/", b"HTTP/1.1 500 "), (b"/begun", b"HTTP/1.1 200 ")):
            connection, tape = Connection(server), Tape()
            connection.connection_made(tape)
            connection.data_received(GET.replace(b"/ ", path + b" "))
            assert tape.written.startswith(expected)
            assert not tape.written.endswith(b"0\r\n\r\n")
            assert tape.closed
            connection.connection_lost(None)
        assert len(reports) == 2
        await server.drain(0)

    asyncio.run(test())
