"""The chunked coding: every way to cut a body into chunks and reads gives the body back; everything else is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Limits
from penstock.errors import CallError
from penstock.http1.chunked import Chunks

LIMITS = Limits(headers_bytes=200, headers=4)


def decode(pieces: list[bytes], max_bytes: int | None = None) -> tuple[bytes, bool, bytes]:
    chunks = Chunks(LIMITS, max_bytes)
    body = b"".join(chunks.feed(piece) for piece in pieces if not chunks.done)
    return body, chunks.done, chunks.excess


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


sizes = st.sampled_from((b"%x", b"%X", b"0%x", b"000%x", b"%x;a", b'%x;a="b c";d', b"%x;"))
bodies = st.lists(st.tuples(st.binary(min_size=1, max_size=40), sizes), max_size=6)
trailers = st.sampled_from((b"", b"X-Sum: 1\r\n", b"X: y\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"))


@given(bodies, trailers, st.lists(st.integers(0, 1_000), max_size=12))
def test_any_split_gives_the_body_back(body: list[tuple[bytes, bytes]], trailer: bytes, cuts: list[int]) -> None:
    raw = b"".join(form % len(data) + b"\r\n" + data + b"\r\n" for data, form in body) + b"0\r\n" + trailer + b"\r\n"
    whole = b"".join(data for data, _ in body)
    assert decode(split(raw, cuts)) == (whole, True, b"")
    assert decode([raw[n : n + 1] for n in range(len(raw))]) == (whole, True, b"")
    assert decode([raw + b"GET /"]) == (whole, True, b"GET /")


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_split_never_decides_whether_bytes_are_refused(raw: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> tuple[bytes, bool, bytes] | str:
        try:
            body, done, excess = decode(pieces)
        except CallError:
            return "refused"
        return (body, done, b"") if done else (body, False, excess)

    one = outcome([raw])
    assert outcome(split(raw, cuts)) == one
    assert outcome([raw[n : n + 1] for n in range(len(raw))]) == one


def test_one_whole_chunk_a_read_is_taken_as_it_is() -> None:
    chunks = Chunks(LIMITS)
    assert [chunks.feed(b"5\r\nhello\r\n"), chunks.feed(b"6\r\n there\r\n"), chunks.feed(b"0\r\n\r\n")] == [b"hello", b" there", b""]
    assert chunks.done


def test_several_chunks_a_read_come_as_one_piece() -> None:
    assert Chunks(LIMITS).feed(b"5\r\nhello\r\n6\r\n there\r\n3\r\nabc") == b"hello there"[:11] + b"abc"


def test_a_body_over_the_bound_is_refused_as_soon_as_a_size_says_so() -> None:
    with pytest.raises(CallError) as caught:
        decode([b"5\r\nhello\r\n", b"6\r\n"], max_bytes=10)
    assert caught.value.status == 413
    assert decode([b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"], max_bytes=10) == (b"hellohello", True, b"")


def test_tiny_chunks_are_bounded_only_where_the_body_is() -> None:
    raw = b"1\r\na\r\n" * 1_200 + b"0\r\n\r\n"
    assert decode([raw])[0] == b"a" * 1_200
    with pytest.raises(CallError):
        decode([raw], max_bytes=10_000)
    assert decode([b"1\r\na\r\n" * 1_000 + b"0\r\n\r\n"], max_bytes=10_000)[1]


@pytest.mark.parametrize("raw", [b"5;" + b"a" * 257, b"0\r\n" + b"X: y\r\n" * 5 + b"\r\n", b"0\r\nX: " + b"y" * 200, b"0" * 16])
def test_what_may_grow_is_bounded(raw: bytes) -> None:
    with pytest.raises(CallError):
        decode([raw])
    with pytest.raises(CallError):
        decode([raw[n : n + 1] for n in range(len(raw))])
