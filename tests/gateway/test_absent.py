"""An answer whose caller is not there."""

from __future__ import annotations

from penstock.gateway.absent import CUT, TOO_LARGE, Absent


def exchange(most: int = 10) -> tuple[Absent, list[tuple[int, bytes]]]:
    done: list[tuple[int, bytes]] = []
    return Absent(b"", most, lambda status, body: done.append((status, body))), done


def test_a_whole_answer_is_kept() -> None:
    absent, done = exchange()
    absent.respond(200, b"", b"body")
    assert absent.started and absent.closed
    absent.respond(500, b"", b"again")
    absent.start(500, b"")
    absent.end(b"more")
    absent.abort()
    assert done == [(200, b"body")]


def test_an_answer_in_pieces_is_kept_whole() -> None:
    absent, done = exchange()
    absent.start(201, b"", 6)
    absent.respond(500, b"", b"")
    for piece in (b"ab", b"cd"):
        absent.send(piece)
    absent.end(b"ef")
    absent.send(b"x")
    assert done == [(201, b"abcdef")]


def test_an_answer_that_breaks_off_is_told_apart() -> None:
    absent, done = exchange()
    absent.start(200, b"")
    absent.send(b"ab")
    absent.abort()
    absent.abort()
    assert done == [(CUT, b"")]


def test_an_answer_too_large_is_dropped_as_it_comes() -> None:
    absent, done = exchange(most=10)
    absent.start(200, b"")
    for _ in range(100):
        absent.send(b"1234")
        assert len(b"".join(absent._parts)) <= 10
    absent.end()
    assert done == [(TOO_LARGE, b"")]
