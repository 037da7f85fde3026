"""A caller's connection over real sockets: order, back-pressure, deadlines, leaving."""

from __future__ import annotations

import asyncio
import re
import socket

import msgspec
import pytest
from tests.http1.world import CLOSE, SHORT, Seen, Tape, answers, serving, status, talk, until

from penstock.config import Limits
from penstock.http1 import Exchange, Server
from penstock.http1.connection import Connection

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def limits(**changes: float) -> Limits:
    return msgspec.structs.replace(SHORT, **changes)


def test_pipelined_requests_are_answered_in_order_though_the_answers_come_late() -> None:
    exchanges: list[Exchange] = []

    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(GET % n for n in range(5)) + LAST)
        await until(lambda: exchanges)
        for n in range(6):
            assert len(exchanges) == n + 1
            exchanges[n].respond(200, b"", b"<%b>" % exchanges[n].path.encode())
        answer = await reader.read()
        assert re.findall(rb"<(.*?)>", answer) == [b"/0", b"/1", b"/2", b"/3", b"/4", b"/last"]
        writer.close()

    serving(test, exchanges.append)


def test_five_thousand_pipelined_requests_are_served_without_recursion() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        answer = await talk(port, GET % 1 * 5_000 + LAST)
        assert answers(answer) == 5_001

    serving(test, seen)
    assert len(seen) == 5_001


def test_a_flood_behind_an_unfinished_request_stays_in_the_kernel() -> None:
    exchanges: list[Exchange] = []

    async def test(port: int, server: Server) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        flood = GET % 2 * 400_000
        writer.write(GET % 1 + flood)
        await until(lambda: exchanges)
        connection = next(iter(server._connections))
        await until(lambda: not connection._reading)
        assert len(connection._buffer) < 600_000
        assert len(exchanges) == 1
        writer.transport.abort()
        exchanges[0].respond(200, b"", b"")
        await until(lambda: len(exchanges) > 1)

        def answer() -> bool:
            for exchange in exchanges[1:]:
                exchange.respond(200, b"", b"")
            return not server.connections

        await until(answer)

    serving(test, exchanges.append, limits(buffer_bytes=65_536))


def test_a_caller_that_does_not_read_pauses_its_stream_and_memory_stays_bounded() -> None:
    state = {"paused": False, "sent": 0, "resumed": 0}

    def app(exchange: Exchange) -> None:
        def resume() -> None:
            state.update(paused=False, resumed=state["resumed"] + 1)
            pump(exchange)

        exchange.on_pause = lambda: state.update(paused=True)
        exchange.on_resume = resume
        exchange.start(200, b"")
        pump(exchange)

    def pump(exchange: Exchange) -> None:
        while not state["paused"] and state["sent"] < 40_000_000:
            exchange.send(bytes(65_536))
            state["sent"] += 65_536
        if state["sent"] >= 40_000_000:
            exchange.end()

    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65_536)
        writer.write(LAST)
        await until(lambda: state["paused"])
        connection = next(iter(server._connections))
        assert connection.transport.get_write_buffer_size() < 65_536 * 6
        assert state["sent"] < 20_000_000
        answer = 0
        while data := await reader.read(1 << 20):
            answer += len(data)
        assert answer > 40_000_000
        assert state["resumed"] >= 1
        writer.close()

    serving(test, app)


def test_pipelined_requests_wait_while_the_caller_does_not_read() -> None:
    seen = Seen()

    def app(exchange: Exchange) -> None:
        seen.note(exchange)
        exchange.respond(200, b"", bytes(1_000_000))

    async def test(port: int, server: Server) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, GET % 1 * 99 + LAST)
        await until(lambda: any(connection.paused for connection in server._connections))
        assert len(seen) < 50
        total = 0
        while data := await loop.sock_recv(sock, 1 << 20):
            total += len(data)
        assert total > 100_000_000
        assert len(seen) == 100
        sock.close()

    serving(test, app)


def test_a_stream_that_begins_behind_an_unread_answer_is_told_to_pause() -> None:
    told: list[str] = []

    def app(exchange: Exchange) -> None:
        exchange.on_pause = lambda: told.append("pause")
        exchange.on_resume = lambda: told.append("resume")
        exchange.start(200, b"")

    connection, tape = Connection(Server(app, SHORT)), Tape()
    connection.connection_made(tape)
    connection.data_received((GET % 1)[:-2])
    connection.pause_writing()
    connection.data_received(b"\r\n")
    assert told == ["pause"]
    connection.resume_writing()
    assert told == ["pause", "resume"]


def test_no_request_is_taken_while_the_answers_before_it_are_unread() -> None:
    seen = Seen()
    connection, tape = Connection(Server(seen, SHORT)), Tape()
    connection.connection_made(tape)
    connection.data_received(GET % 1)
    connection.pause_writing()
    connection.data_received(GET % 1)
    connection.data_received(GET % 2)
    assert len(seen) == 1
    assert seen.exchanges[0].paused
    connection.resume_writing()
    assert [path for _, path, _, _ in seen] == ["/1", "/1", "/2"]


def test_a_flood_that_ends_in_a_last_request_is_answered_and_closed() -> None:
    exchanges: list[Exchange] = []

    async def test(port: int, server: Server) -> None:
        answer = asyncio.ensure_future(talk(port, GET % 1 + LAST + GET % 2 * 40_000))
        await until(lambda: exchanges and not any(connection._reading for connection in server._connections))
        exchanges[0].respond(200, b"", b"")
        await until(lambda: len(exchanges) > 1)
        exchanges[1].respond(200, b"", b"")
        assert answers(await answer) == 2
        assert len(exchanges) == 2

    serving(test, exchanges.append, limits(buffer_bytes=65_536))


@pytest.mark.parametrize("half", [True, False])
def test_a_caller_that_leaves_is_told_to_the_application_once(half: bool) -> None:
    cancelled: list[str] = []
    exchanges: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        exchanges.append(exchange)
        exchange.on_cancel = lambda: cancelled.append(exchange.path)

    async def test(port: int, server: Server) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % 1)
        await until(lambda: exchanges)
        if half:
            writer.write_eof()
        else:
            writer.close()
        await until(lambda: cancelled)
        assert exchanges[0].closed
        exchanges[0].respond(200, b"", b"")
        await until(lambda: not server.connections)
        assert cancelled == ["/1"]
        writer.close()

    serving(test, app)


def test_a_caller_that_leaves_in_the_middle_of_a_stream_is_told() -> None:
    cancelled: list[bool] = []

    def app(exchange: Exchange) -> None:
        exchange.on_cancel = lambda: cancelled.append(exchange.started)
        exchange.start(200, b"")
        exchange.send(b"hello")

    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % 1)
        await reader.readuntil(b"hello\r\n")
        writer.transport.abort()
        await until(lambda: cancelled)
        assert cancelled == [True]

    serving(test, app)


def test_a_caller_that_leaves_after_its_answer_is_no_cancellation() -> None:
    cancelled: list[bool] = []

    def app(exchange: Exchange) -> None:
        exchange.on_cancel = lambda: cancelled.append(True)
        exchange.respond(200, b"", b"")

    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % 1)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await until(lambda: not server.connections)
        assert cancelled == []

    serving(test, app)


@pytest.mark.parametrize(
    ("beginning", "changes", "expected"),
    [
        (b"GET / HT", {"header_s": 0.1}, 408),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-", {"header_s": 0.1}, 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", {"body_s": 0.1}, 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", {"body_s": 0.1}, 408),
    ],
)
def test_an_unfinished_request_is_refused_at_its_deadline(beginning: bytes, changes: dict[str, float], expected: int) -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        assert status(await talk(port, beginning)) == expected

    serving(test, seen, limits(**changes))
    assert seen == []


def test_the_head_deadline_is_total_and_not_per_read() -> None:
    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
        while not answer.done():
            writer.write(b"b")
            await asyncio.sleep(0.01)
        assert status(await answer) == 408
        writer.close()

    serving(test, Seen(), limits(header_s=0.2))


@pytest.mark.parametrize(("sent", "changes"), [(b"", {"header_s": 0.1}), (GET % 1, {"keepalive_s": 0.1})])
def test_an_idle_connection_is_closed_without_a_word(sent: bytes, changes: dict[str, float]) -> None:
    async def test(port: int, server: Server) -> None:
        assert answers(await talk(port, sent)) == (1 if sent else 0)

    serving(test, Seen(), limits(**changes))


def test_a_caller_that_never_reads_is_cut_at_the_write_deadline() -> None:
    cancelled: list[bool] = []

    def app(exchange: Exchange) -> None:
        exchange.on_cancel = lambda: cancelled.append(True)
        exchange.start(200, b"")
        exchange.send(bytes(30_000_000))

    async def test(port: int, server: Server) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, GET % 1)
        await until(lambda: cancelled)
        await until(lambda: not server.connections)
        sock.close()

    serving(test, app, limits(write_s=0.1))


def test_a_finished_answer_that_is_never_read_is_cut_too() -> None:
    async def test(port: int, server: Server) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, LAST)
        await until(lambda: server.connections)
        await until(lambda: not server.connections)
        sock.close()

    serving(test, lambda exchange: exchange.respond(200, b"", bytes(30_000_000)), limits(write_s=0.1))


def test_an_answer_that_takes_too_long_is_cut() -> None:
    cancelled: list[bool] = []

    def app(exchange: Exchange) -> None:
        exchange.on_cancel = lambda: cancelled.append(True)
        exchange.start(200, b"")

    async def test(port: int, server: Server) -> None:
        assert not (await talk(port, GET % 1)).endswith(b"0\r\n\r\n")
        assert cancelled == [True]

    serving(test, app, limits(stream_s=0.1))


def test_a_waiting_caller_is_told_to_continue() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        for framing, body in ((b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + CLOSE + framing + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert status(await reader.read()) == 200
            writer.close()

    serving(test, seen)
    assert [body for *_, body in seen] == [b"hello", b"hello"]


def test_a_caller_that_did_not_wait_is_not_told_to_continue() -> None:
    async def test(port: int, server: Server) -> None:
        raw = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + CLOSE + b"Content-Length: 5\r\n\r\nhello"
        assert status(await talk(port, raw)) == 200

    serving(test, Seen())


def test_a_refused_upload_can_still_read_why() -> None:
    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        assert status(await reader.read()) == 413
        writer.close()

    serving(test, Seen())


def test_trailers_never_become_headers() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + CLOSE + b"\r\n0\r\nAuthorization: x\r\nX-A: b\r\n\r\n"
        assert status(await talk(port, raw)) == 200

    serving(test, seen)
    assert set(seen.exchanges[0].headers) == {"host", "transfer-encoding", "connection"}
