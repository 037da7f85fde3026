"""Where one read ends and the next begins decides nothing: whole streams, cut anywhere, reach the application alike."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.http1.world import SHORT, Seen, Tape

from penstock.http1 import Server
from penstock.http1.connection import Connection

GET = b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n"
LAST = b"GET /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BAD = (
    b"GET /e HTTP/1.1\r\nHost: a\r\nX: a\nb\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    b"GET //e HTTP/1.1\r\nHost: a\r\n\r\n",
)
requests = st.sampled_from((GET, POST, CHUNKED, LAST, b"\r\n" + GET, *BAD))
streams = st.lists(requests, min_size=1, max_size=6).map(b"".join)


def feed(pieces: list[bytes], late: bool = False) -> tuple[Seen, list[bytes], bool]:
    """What the application saw, the statuses answered, whether the connection was ended. late: answers come after all reads."""
    seen = Seen()
    server = Server(seen.note if late else seen, SHORT)
    connection, tape = Connection(server), Tape()
    connection.connection_made(tape)
    for piece in pieces:
        if not tape.closed:
            connection.data_received(piece)
    answered = 0
    while late and answered < len(seen.exchanges):
        seen.exchanges[answered].respond(200, b"", b"")
        answered += 1
    return seen, re.findall(rb"HTTP/1\.1 ([0-9]{3}) (?!Continue)", tape.written), tape.ended or tape.closed


def single(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def test_a_request_cut_at_any_byte_is_the_same_exchange() -> None:
    async def test() -> None:
        for raw in (GET, POST, CHUNKED, LAST, GET + POST + CHUNKED + LAST + GET):
            whole = feed([raw])
            for cut in range(1, len(raw)):
                assert feed([raw[:cut], raw[cut:]]) == whole
            assert feed(single(raw)) == whole

    asyncio.run(test())


@given(streams, st.lists(st.integers(0, 1_000), max_size=10), st.booleans())
def test_splitting_a_stream_changes_nothing(raw: bytes, cuts: list[int], late: bool) -> None:
    places = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    pieces = [raw[a:b] for a, b in pairwise(places)]
    whole = feed([raw])
    assert feed(pieces) == whole
    assert feed(pieces, late) == whole
    assert feed(single(raw), late) == whole


@given(streams, st.integers(0, 1_000), st.integers(0, 255), st.lists(st.integers(0, 1_000), max_size=6))
def test_splitting_a_damaged_stream_lets_nothing_more_through(raw: bytes, place: int, byte: int, cuts: list[int]) -> None:
    place %= len(raw)
    raw = raw[:place] + bytes([byte]) + raw[place + 1 :]
    places = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    seen, statuses, ended = feed([raw])
    for pieces in ([raw[a:b] for a, b in pairwise(places)], single(raw)):
        again, others, closed = feed(pieces)
        assert (again, closed) == (seen, ended)
        # Which of two faults is named first may depend on the split; that one is named may not.
        assert [code == b"200" for code in others] == [code == b"200" for code in statuses]


def test_an_equal_head_is_compared_and_not_parsed() -> None:
    seen, statuses, _ = feed([POST, POST.replace(b"hello", b"there"), POST[:-1], b"x", POST + POST])
    assert [body for *_, body in seen] == [b"hello", b"there", b"hellx", b"hello", b"hello"]
    assert statuses == [b"200"] * 5
    assert len({id(exchange.headers) for exchange in seen.exchanges}) == 1


def test_requests_that_differ_in_their_length_only_are_read_alike() -> None:
    lengths = (12, 5, 0, 12, 13, 99, 4_097, 5)
    stream = [b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-A: b\r\n\r\n" % n + bytes(n) for n in lengths]
    whole = feed([b"".join(stream)])
    assert [len(body) for *_, body in whole[0]] == [12, 5, 0, 12, 13, 99]
    assert whole[1] == [b"200"] * 6 + [b"413"]
    assert feed(stream) == whole
    assert feed(single(b"".join(stream))) == whole
    assert [int(exchange.headers["content-length"]) for exchange in whole[0].exchanges] == [12, 5, 0, 12, 13, 99]
