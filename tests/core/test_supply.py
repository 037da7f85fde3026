"""What nodes that are busy for differently long can do by when."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import config
from penstock.core.fleet import Node
from penstock.core.supply import MANY, Supply
from penstock.knobs import Knobs

NOW = 5.0
FLEETS = st.lists(st.tuples(st.floats(-10.0, 100.0), st.floats(0.1, 1.0)), min_size=1, max_size=8)


def fleet(*busy: tuple[float, float]) -> list[Node]:
    nodes = [Node(index, config.Node(name=f"n{index}", url="http://127.0.0.1:9"), Knobs(), None) for index in range(len(busy))]
    for node, (free_at, share) in zip(nodes, busy, strict=True):
        node.free_at, node.share = free_at, share
    return nodes


@given(FLEETS, st.floats(NOW, 200.0))
def test_each_node_does_its_share_from_when_it_is_free(busy: list[tuple[float, float]], at: float) -> None:
    done = sum(share * max(0.0, at - max(NOW, free_at)) for free_at, share in busy)
    by = Supply(fleet(*busy), NOW).by(at)
    assert max(0.0, by) == pytest.approx(done, abs=1e-6)


@given(FLEETS, st.floats(0.0, 500.0))
def test_work_is_done_when_so_much_can_be(busy: list[tuple[float, float]], seconds: float) -> None:
    supply = Supply(fleet(*busy), NOW)
    assert supply.by(supply.when(seconds)) == pytest.approx(seconds, abs=1e-6)


def test_time_before_now_is_no_credit() -> None:
    assert Supply(fleet((-100.0, 1.0)), NOW).when(2.0) == NOW + 2.0


def test_of_very_many_the_mean_backlog_tells() -> None:
    busy = [(NOW + 2.0 * (index % 2), 1.0) for index in range(MANY + 2)]
    assert Supply(fleet(*busy), NOW).by(NOW + 3.0) == pytest.approx((MANY + 2) * 2.0)


def test_part_of_the_nodes_time_takes_longer() -> None:
    assert Supply(fleet((NOW, 1.0), (NOW, 1.0)), NOW, share=0.25).when(2.0) == NOW + 4.0


def test_without_a_node_nothing_is_ever_done() -> None:
    assert Supply([], NOW).when(0.0) == inf and Supply([], NOW).by(100.0) == 0.0
