"""How far answers lie from their node's mean, and what nodes do together."""

from __future__ import annotations

import random

import pytest

from penstock import config
from penstock.core.answers import FIRST, Answers, mean_s, per_s
from penstock.core.concurrency import IDLE, START
from penstock.core.fleet import Node
from penstock.knobs import Knobs

KEY = ("m", "class")


def node(limit: float, recent_s: float, **settings: int) -> Node:
    made = Node(0, config.Node(name="n", url="http://127.0.0.1:9", **settings), Knobs(), None)  # type: ignore[arg-type]
    if made.concurrency is not None:
        made.concurrency.beside, made.concurrency.recent_s, made.concurrency.rules = limit, recent_s, True
    return made


def test_quantiles_are_learned_by_class() -> None:
    answers, draw = Answers(), random.Random(1)
    for _ in range(5_000):
        answers.learn(KEY, draw.expovariate(1.0), 1.0)
    middle, high = answers.ratios(KEY)
    assert middle == pytest.approx(1.2, rel=0.3) and high == pytest.approx(2.3, rel=0.3)
    assert answers.ratios(("m", "other")) == FIRST


def test_answer_of_a_node_without_a_mean_teaches_nothing() -> None:
    answers = Answers()
    answers.learn(KEY, 1.0, 0.0)
    assert answers.ratios(KEY) == FIRST


def test_mean_and_rate_are_of_the_nodes_that_are_up_and_known() -> None:
    lost, fast, slow = node(8, 0.5), node(8, 1.0), node(4, 2.0)
    lost.state = "lost"
    nodes = [lost, fast, slow, node(4, 0.0), node(4, 1.0, max_running=4)]
    assert per_s(nodes) == pytest.approx(8 / 1.0 + max(4, IDLE * START) / 2.0)
    for one in nodes:
        one.running = 100
    slow_per_s = max(4, IDLE * START) / 2.0
    assert mean_s(nodes) == pytest.approx((8 * 1.0 + slow_per_s * 2.0) / (8 + slow_per_s))
    assert (per_s([]), mean_s([])) == (0.0, 0.0)
