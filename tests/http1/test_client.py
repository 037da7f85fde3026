"""The pool: connections used again, tried again, given up, and the deadlines of each phase."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from tests.http1.node import Got, Node, asking
from tests.http1.world import SHORT, run, until

from penstock.errors import ConfigError
from penstock.facts import Failure
from penstock.http1 import Call, Upstream, server_context

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_request_is_framed_by_its_body() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        for head, body in ((GET, b""), (POST, b""), (POST, b"hi"), (POST, b"h" * 20_000)):
            got = Got()
            upstream.request(head, body, got)
            await got.wait()
        assert node.requests == [
            GET + b"\r\n",
            POST + b"content-length: 0\r\n\r\n",
            POST + b"content-length: 2\r\n\r\nhi",
            POST + b"content-length: 20000\r\n\r\n" + b"h" * 20_000,
        ]
        assert node.accepted == 1

    asking(test, OK)


def test_nothing_is_called_before_request_returns() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        for _ in range(2):
            got = Got()
            upstream.request(GET, b"", got)
            assert not got.over
            assert not got.status
            await got.wait()

    asking(test, OK)


def test_the_connection_used_last_is_used_first() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        many = [Got() for _ in range(5)]
        for got in many:
            upstream.request(GET, b"", got)
        await until(lambda: all(got.over for got in many))
        assert upstream.idle == upstream.connections == 5
        last = upstream._idle[-1]
        got = Got()
        call = upstream.request(GET, b"", got)
        assert call.line is last
        await got.wait()
        assert upstream._idle[-1] is last

    asking(test, OK)


def test_an_equal_answer_head_is_compared_and_not_parsed() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        first, second = Got(), Got()
        for got in (first, second):
            upstream.request(GET, b"", got)
            await got.wait()
        assert first.headers is second.headers

    asking(test, OK)


def test_a_receiver_may_ask_again_from_its_end() -> None:
    class Again(Got):
        def on_end(self) -> None:
            super().on_end()
            upstreams[0].request(GET, b"", second)

    second = Got()
    upstreams: list[Upstream] = []

    async def test(upstream: Upstream, node: Node) -> None:
        upstreams.append(upstream)
        upstream.request(GET, b"", Again())
        await second.wait()
        assert second.body == b"hello"
        assert node.accepted == 1

    asking(test, OK)


def test_a_pooled_connection_found_dead_is_tried_once_more_on_a_fresh_one() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        # The node goes away at the very moment we send: the request meets a closed socket.
        node.writers[0].transport.abort()
        got = Got()
        upstream.request(POST, b"hi", got)
        await got.wait()
        assert (got.failure, got.body) == (None, b"hello")
        assert node.accepted == 2

    asking(test, OK)


def test_a_second_connection_that_dies_too_is_a_reset() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        node.writers[0].transport.abort()
        node.answer, node.closes = b"", True
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.RESET
        assert node.accepted == 2

    asking(test, OK)


def test_a_node_that_closes_its_idle_connection_is_asked_on_another() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        for n in range(3):
            got = Got()
            upstream.request(GET, b"", got)
            await got.wait()
            assert got.failure is None
            node.writers[n].close()
            await until(lambda: not upstream.connections)
        assert upstream.idle == 0

    asking(test, OK)


def test_a_refused_connection_is_a_connect_failure() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            port = bound.getsockname()[1]
        upstream, got = Upstream(f"http://127.0.0.1:{port}", SHORT), Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.CONNECT

    run(test)


def test_a_connection_that_takes_too_long_is_a_connect_failure() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            loop = asyncio.get_running_loop()
            # The kernel completes no more handshakes once the queue is full.
            crowd = [socket.socket() for _ in range(4)]
            for sock in crowd:
                sock.setblocking(False)
                sock.connect_ex(address)
            limits = msgspec.structs.replace(SHORT, connect_s=0.1)
            upstream, got = Upstream(f"http://127.0.0.1:{address[1]}", limits, loop=loop), Got()
            upstream.request(GET, b"", got)
            await got.wait()
            assert got.failure == Failure.CONNECT
            for sock in crowd:
                sock.close()

    run(test)


def test_an_unknown_host_is_a_connect_failure() -> None:
    async def test() -> None:
        upstream, got = Upstream("http://penstock.invalid:1", SHORT), Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.CONNECT

    run(test)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", STREAM])
def test_an_answer_that_does_not_begin_is_a_timeout(beginning: bytes) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.TIMEOUT
        assert "no answer" in got.detail
        await until(lambda: not upstream.connections)

    asking(test, beginning, msgspec.structs.replace(SHORT, first_byte_s=0.1))


def test_silence_inside_an_answer_is_a_timeout() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert (got.failure, got.body) == (Failure.TIMEOUT, b"hello")
        assert "silence" in got.detail

    asking(test, STREAM + b"5\r\nhello\r\n", msgspec.structs.replace(SHORT, idle_s=0.1))


def test_a_node_that_does_not_read_is_a_timeout() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        node.early = True
        got = Got()
        upstream.request(POST, bytes(20_000_000), got)
        await got.wait()
        assert got.failure == Failure.TIMEOUT
        assert "not read" in got.detail

    asking(test, b"", msgspec.structs.replace(SHORT, write_s=0.1, idle_s=0.2))


def test_an_idle_connection_is_closed_in_time() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        await until(lambda: not upstream.connections)
        assert upstream.idle == 0

    asking(test, OK, msgspec.structs.replace(SHORT, keepalive_s=0.1))


@pytest.mark.parametrize("beginning", [b"", STREAM + b"5\r\nhello\r\n"])
def test_a_cancelled_call_is_never_told_anything_and_the_node_sees_the_close(beginning: bytes) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        call = upstream.request(GET, b"", got)
        await until(lambda: node.requests and (not beginning or got.pieces))
        call.cancel()
        call.cancel()
        await until(lambda: not upstream.connections)
        await node.writers[0].wait_closed()
        assert not got.over

    asking(test, beginning)


def test_a_call_cancelled_from_its_own_head_is_told_no_body() -> None:
    class Leaver(Got):
        def on_head(self, status: int, headers: object) -> None:
            self.status = status
            calls[0].cancel()

    calls: list[Call] = []

    async def test(upstream: Upstream, node: Node) -> None:
        for answer in (OK, STREAM + b"5\r\nhello\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello"):
            node.answer = answer
            got = Leaver()
            calls[:] = [upstream.request(GET, b"", got)]
            await got.begin()
            await until(lambda: not upstream.connections)
            assert not got.pieces
            assert not got.over

    asking(test, b"")


def test_a_call_cancelled_while_connecting_leaves_its_connection_to_the_next() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got).cancel()
        await until(lambda: upstream.idle == 1)
        second = Got()
        upstream.request(GET, b"", second)
        await second.wait()
        assert second.failure is None
        assert not got.over
        assert node.accepted == 1

    asking(test, OK)


def test_a_cancel_after_the_end_leaves_the_connection_alone() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        call = upstream.request(GET, b"", got)
        await got.wait()
        call.cancel()
        assert upstream.idle == 1

    asking(test, OK)


def test_a_paused_call_does_not_read_and_does_not_time_out() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        size = 40_000_000
        node.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (size, bytes(size))
        got = Got()
        call = upstream.request(GET, b"", got)
        await until(lambda: got.pieces)
        call.pause()
        call.pause()
        before = len(got.body)
        await asyncio.sleep(0.4)
        assert len(got.body) <= before + 600_000
        assert not got.over
        call.resume()
        call.resume()
        await got.wait()
        assert got.failure is None
        assert len(got.body) == size
        assert upstream.idle == 1

    asking(test, b"", msgspec.structs.replace(SHORT, idle_s=0.15))


def test_a_call_paused_while_connecting_does_not_read() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        call = upstream.request(GET, b"", got)
        call.pause()
        await until(lambda: node.requests)
        await asyncio.sleep(0.02)
        assert not got.status
        call.resume()
        await got.wait()
        assert got.body == b"hello"

    asking(test, OK)


def test_a_paused_connection_is_read_again_for_the_next_call() -> None:
    class Pauser(Got):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            calls[0].pause()

    calls: list[Call] = []

    async def test(upstream: Upstream, node: Node) -> None:
        first = Pauser()
        calls.append(upstream.request(GET, b"", first))
        await first.wait()
        calls[0].resume()
        second = Got()
        upstream.request(GET, b"", second)
        await second.wait()
        assert second.body == b"hello"
        assert node.accepted == 1

    asking(test, OK)


def test_a_closed_upstream_dials_no_more_and_fails_what_it_is_asked() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        upstream.close()
        got = Got()
        upstream.request(GET, b"", got)
        assert not got.over
        await until(lambda: got.over)
        assert got.failure is Failure.CONNECT and node.accepted == 0

    asking(test, OK)


def test_a_closed_upstream_keeps_no_idle_connection() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        first, second = Got(), Got()
        upstream.request(GET, b"", first)
        await first.wait()
        node.answer = b""
        upstream.request(GET, b"", second)
        await until(lambda: len(node.requests) == 2)
        upstream.close()
        node.writers[0].write(OK)
        await second.wait()
        assert second.failure is None
        await until(lambda: not upstream.connections)

    asking(test, OK)


def test_a_call_that_is_connecting_when_the_upstream_closes_fails() -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await asyncio.sleep(0)
        upstream.close()
        await got.wait()
        assert got.failure == Failure.CONNECT

    asking(test, OK)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """(authority's file, context of a node that is called engine.internal)."""
    folder: Path = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    issued = ca.issue_cert("engine.internal")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return str(folder / "ca.pem"), server_context(str(folder / "cert.pem"), str(folder / "key.pem"))


def test_a_node_is_asked_over_tls_under_the_name_given(authority: tuple[str, ssl.SSLContext]) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        for _ in range(2):
            got = Got()
            upstream.request(POST, b"hi", got)
            await got.wait()
            assert (got.failure, got.body) == (None, b"hello")
        assert node.accepted == 1

    asking(test, OK, scheme="https", ssl=authority[1], ca=authority[0], sni="engine.internal")


def test_a_certificate_with_another_name_is_a_connect_failure(authority: tuple[str, ssl.SSLContext]) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.CONNECT
        assert not node.requests

    asking(test, OK, scheme="https", ssl=authority[1], ca=authority[0])


def test_a_certificate_of_an_unknown_authority_is_a_connect_failure(authority: tuple[str, ssl.SSLContext]) -> None:
    async def test(upstream: Upstream, node: Node) -> None:
        got = Got()
        upstream.request(GET, b"", got)
        await got.wait()
        assert got.failure == Failure.CONNECT
        assert not node.requests

    asking(test, OK, scheme="https", ssl=authority[1], sni="engine.internal")


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://u@a", "http://a?x", "http://a:99999", "http://a#b", "a:80", "http://[::1"])
def test_a_url_that_cannot_be_used_is_a_config_error(url: str) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError):
            Upstream(url, SHORT)

    run(test)


def test_an_authority_file_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError):
            Upstream("https://a", SHORT, ca=str(tmp_path / "none.pem"))
        (tmp_path / "bad.pem").write_text("no certificate")
        with pytest.raises(ConfigError):
            Upstream("https://a", SHORT, ca=str(tmp_path / "bad.pem"))

    run(test)
