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
    hog.rich, hog.want, core.books.others_s = True, 1.0, 1.0
    core.books.surveyed_at = play.now
    return play


def test_it_is_kept_off_the_first_nodes() -> None:
    play = crowded()
    play >> Finished(3) << NOTHING >> Finished(2) << forward(9, "b")


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
