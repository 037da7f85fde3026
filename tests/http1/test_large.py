"""Bodies larger than most, where the application allows them."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec
import pytest
from tests.http1.world import SHORT, Seen, body, is_error, serving, status, talk, until

from penstock.http1 import Server

LARGE = 20_000


def allow(method: str, path: str, authorization: str | None) -> int:
    return LARGE if (method, path, authorization) == ("POST", "/files", "Bearer good") else SHORT.body_bytes


def head(path: str, length: int | None, key: str = "good") -> bytes:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n{framing}\r\n\r\n".encode()


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("path", "key", "size", "wanted"),
    [
        ("/files", "good", LARGE, 200),
        ("/files", "good", LARGE + 1, 413),
        ("/files", "bad", LARGE, 413),
        ("/files", "bad", SHORT.body_bytes, 200),
        ("/calls", "good", LARGE, 413),
    ],
)
@pytest.mark.parametrize("chunks", [False, True], ids=["counted", "chunked"])
def test_a_body_may_be_as_large_as_its_path_and_key_allow(path: str, key: str, size: int, wanted: int, chunks: bool) -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        server.larger = allow
        data = b"x" * size
        answer = await talk(port, head(path, None if chunks else size, key), chunked(data) if chunks else data)
        assert status(answer) == wanted
        assert [len(one[3]) for one in seen] == ([size] if wanted == 200 else [])

    serving(test, seen)


def _coming(server: Server, count: int) -> bool:
    return sum(one.takes_large for one in server._connections) == count


def test_only_a_few_large_bodies_come_in_at_a_time() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        server.larger = allow
        writers = []
        for count in range(1, 9):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/files", LARGE))
            writers.append(writer)
            await until(partial(_coming, server, count))
        answer = await talk(port, head("/files", LARGE))
        assert (status(answer), is_error(answer), b"retry-after: 1" in answer) == (503, True, True)
        assert msgspec.json.decode(body(answer))["error"]["code"] == "too_many_uploads"
        assert status(await talk(port, head("/files", 100), b"x" * 100)) == 200
        writers[0].close()
        await until(partial(_coming, server, 7))
        assert status(await talk(port, head("/files", LARGE), b"x" * LARGE)) == 200
        for writer in writers:
            writer.close()

    serving(test, seen)


def test_an_equal_head_on_the_same_connection_is_asked_about_again() -> None:
    seen = Seen()

    async def test(port: int, server: Server) -> None:
        server.larger = allow
        known = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
        again = head("/files", LARGE).replace(b"connection: close\r\n", b"")
        for reader, writer in known:
            writer.write(again)
            await until(partial(_coming, server, 1))
            writer.write(b"x" * LARGE)
            assert status(await reader.readuntil(b"\r\n\r\n")) == 200
            await until(partial(_coming, server, 0))
        for count, (_, writer) in enumerate(known[:8], 1):
            writer.write(again)
            await until(partial(_coming, server, count))
        known[8][1].write(again)
        answer = await known[8][0].readuntil(b"\r\n\r\n")
        while status(answer) == 200:
            answer = await known[8][0].readuntil(b"\r\n\r\n")
        assert status(answer) == 503
        for _, writer in known:
            writer.close()

    serving(test, seen)
