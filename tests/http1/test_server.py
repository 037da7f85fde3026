"""The listener: cap, drain, TLS, sockets handed in, Date."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from tests.http1.world import SHORT, Seen, answers, run, serving, status, talk, until

from penstock.http1 import Exchange, Server, client_context, server_context

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """(authority, certificate, key) for localhost and 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=number > 0)
    return str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem")


def test_connections_over_the_cap_are_refused_with_a_reason() -> None:
    async def test(port: int, server: Server) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: server.connections == 2)
        answer = await talk(port)
        assert status(answer) == 503
        assert b"\r\nretry-after: " in answer
        held[0][1].close()
        await until(lambda: server.connections == 1)
        assert status(await talk(port, LAST)) == 200
        held[1][1].close()

    serving(test, Seen(), msgspec.structs.replace(SHORT, connections=2))


def test_drain_closes_idle_connections_and_lets_requests_finish() -> None:
    exchanges: list[Exchange] = []

    async def test(port: int, server: Server) -> None:
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        begun, begun_writer = await asyncio.open_connection("127.0.0.1", port)
        busy, busy_writer = await asyncio.open_connection("127.0.0.1", port)
        idle_writer.write(GET)
        await until(lambda: exchanges)
        exchanges.pop().respond(204, b"", b"")
        await idle.readuntil(b"\r\n\r\n")
        begun_writer.write(GET)
        await until(lambda: len(exchanges) == 1)
        exchanges[0].start(200, b"")
        busy_writer.write(GET + GET)
        await until(lambda: len(exchanges) == 2)
        drained = asyncio.ensure_future(server.drain(20))
        assert await idle.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not drained.done()
        exchanges[1].respond(200, b"", b"hi")
        answer = await busy.read()
        assert b"\r\nconnection: close\r\n" in answer
        assert answers(answer) == 1
        exchanges[0].end(b"done")
        assert (await begun.read()).endswith(b"done\r\n0\r\n\r\n")
        await drained
        assert server.connections == 0
        for writer in (idle_writer, begun_writer, busy_writer):
            writer.close()

    serving(test, exchanges.append)


def test_drain_cuts_what_does_not_finish_in_time() -> None:
    cancelled: list[bool] = []
    exchanges: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        exchanges.append(exchange)
        exchange.on_cancel = lambda: cancelled.append(True)

    async def test(port: int, server: Server) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await until(lambda: exchanges)
        await server.drain(0.05)
        assert cancelled == [True]
        writer.close()

    serving(test, app)


def test_drain_lets_a_request_that_is_still_being_read_come_in() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET[:10])
        await until(lambda: any(connection._buffer for connection in server._connections))
        drained = asyncio.ensure_future(server.drain(20))
        await asyncio.sleep(0)
        writer.write(GET[10:])
        assert status(await reader.read()) == 200
        await drained
        writer.close()

    serving(test, seen)
    assert len(seen) == 1


def test_a_fresh_connection_may_still_send_its_request_while_draining() -> None:
    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        drained = asyncio.ensure_future(server.drain(20))
        await until(lambda: server.draining)
        writer.write(GET)
        answer = await reader.read()
        assert status(answer) == 200
        assert b"\r\nconnection: close\r\n" in answer
        await drained
        writer.close()

    serving(test, Seen())


def test_a_fresh_connection_that_says_nothing_does_not_hold_the_drain() -> None:
    async def test(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: server.connections)
        await server.drain(20)
        assert await reader.read() == b""
        writer.close()

    serving(test, Seen())


def test_tls_is_served_with_http_1_1_only(files: tuple[str, str, str]) -> None:
    ca, cert, key = files
    seen = Seen()

    async def test() -> None:
        server = Server(seen, SHORT)
        port = await server.listen("127.0.0.1", 0, ssl=server_context(cert, key))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(ca), server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.write(GET + LAST)
        assert answers(await reader.read()) == 2
        writer.close()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(ca)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")
        await server.drain(0)

    run(test)
    assert len(seen) == 2


def test_a_malformed_request_over_tls_is_refused_and_closed(files: tuple[str, str, str]) -> None:
    ca, cert, key = files

    async def test() -> None:
        server = Server(Seen(), SHORT)
        port = await server.listen("127.0.0.1", 0, ssl=server_context(cert, key))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(ca), server_hostname="localhost")
        writer.write(b"GET // HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status(await reader.read()) == 400
        writer.close()
        await server.drain(0)

    run(test)


def test_a_bound_socket_and_a_second_listener_are_served() -> None:
    async def test() -> None:
        server = Server(Seen(), SHORT)
        bound = socket.create_server(("127.0.0.1", 0))
        first = await server.listen(sock=bound)
        second = await server.listen("127.0.0.1", 0)
        assert first == bound.getsockname()[1] != second
        for port in (first, second):
            assert status(await talk(port, LAST)) == 200
        await server.drain(1)

    run(test)


def test_answers_carry_a_date_when_asked_to() -> None:
    async def test(port: int, server: Server) -> None:
        pattern = rb"\r\ndate: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n"
        assert re.search(pattern, await talk(port, LAST))
        assert re.search(pattern, await talk(port, b"GET // HTTP/1.1\r\n\r\n"))

    serving(test, Seen(), date=True)


def test_the_caller_is_named_by_its_address() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        await talk(port, LAST)

    serving(test, seen)
    assert seen.exchanges[0].peer == "127.0.0.1"
