"""A tenant above its share is kept off some nodes for the others, and never off all that could serve it."""

from __future__ import annotations

from tests.playbook import NOTHING, Play, build, call, forward

from penstock.config import Node
from penstock.core.fairness import AWAY_S, LEARN_S
from penstock.events import Arrived, Failed, Finished, NodeLost, NodeSeen
from penstock.facts import Failure, Signals


def crowded(last: str = "poor") -> Play:
    """Two nodes with one slot each, both at work, while one waits of `hog`, which has had more than its share."""
    core = build(*(Node(name=name, url="http://127.0.0.1:9", max_running=1) for name in ("a", "b")))
    play = Play(core)
    play >> Arrived(call(1, tenant="hog")) << forward(1, "a") >> Arrived(call(2, tenant=last)) << forward(2, "b")
    play >> Finished(1) << NOTHING
    play >> Arrived(call(3, tenant="poor")) << forward(3, "a") >> Arrived(call(9, tenant="hog")) << NOTHING
    hog = core.books.accounts["hog"]
    hog.rich, hog.want, hog.apart = True, 1.0, True
    core.books.flood.level, core.books.flood.others_s = 1.0, 1.0
    core.books.surveyed_at = play.now
    return play


def test_it_is_kept_off_the_first_nodes() -> None:
    play = crowded()
    play >> Finished(3) << NOTHING >> Finished(2) << forward(9, "b")


def test_a_new_one_is_kept_off_them_although_they_are_free_and_nothing_waits() -> None:
    core = build(*(Node(name=name, url="http://127.0.0.1:9", max_running=2) for name in ("a", "b")))
    play = Play(core)
    play >> Arrived(call(1, tenant="poor")) << forward(1, "a") >> Arrived(call(2, tenant="hog")) << forward(2, "b")
    hog, books = core.books.accounts["hog"], core.books
    hog.apart, books.flood.level, books.flood.others_s, books.surveyed_at = True, 1.0, 1.0, play.now
    play >> Finished(1) << NOTHING
    play >> Arrived(call(3, tenant="hog")) << forward(3, "b") >> Arrived(call(4, tenant="hog")) << NOTHING
    play >> Arrived(call(5, tenant="poor")) << forward(5, "a")


def test_others_pass_it_while_it_waits_for_the_nodes_that_it_may_take() -> None:
    core = build(*(Node(name=name, url="http://127.0.0.1:9") for name in ("a", "b")))
    play = Play(core)
    play >> Arrived(call(1, tenant="poor")) << forward(1, "a") >> Arrived(call(2, tokens=100_000, tenant="hog")) << forward(2, "b")
    hog, books = core.books.accounts["hog"], core.books
    hog.apart, books.flood.level, books.flood.others_s, books.surveyed_at = True, 1.0, 1.0, play.now
    books.accounts["poor"].counter = 1e9
    for id in range(10, 40):
        play >> Arrived(call(id, tenant="hog")) << NOTHING
    play >> Finished(1) << NOTHING
    play >> Arrived(call(3, tenant="poor")) << forward(3, "a")


def test_one_that_the_other_nodes_failed_is_given_to_them() -> None:
    play = crowded()
    play >> Finished(3) << NOTHING >> Finished(2) << forward(9, "b")
    play >> Failed(9, Failure.CONNECT, False) << forward(9, "a")


def test_when_the_other_nodes_are_gone_it_is_given_to_them() -> None:
    play = crowded()
    play >> Finished(3) << NOTHING >> NodeLost("b") << forward(9, "a")


def test_when_the_others_have_left_it_is_kept_off_no_longer() -> None:
    play = crowded("hog")
    play >> Finished(3) << NOTHING
    play.at(LEARN_S + AWAY_S + 1.0) >> NodeSeen("a", Signals()) << NOTHING
    play >> NodeSeen("a", Signals()) << forward(9, "a")
