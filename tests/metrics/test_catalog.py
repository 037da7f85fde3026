"""The list of metrics keeps to Prometheus' conventions and to what is written out."""

from __future__ import annotations

import random
import re

import pytest

from penstock.config import Config, KeyLimit, Node
from penstock.core import Core
from penstock.core.account import FREE, Account
from penstock.events import NodeSeen
from penstock.facts import Host, NodeSnapshot, Signals
from penstock.knobs import Knobs
from penstock.metrics.catalog import CATALOG, Kind, Metric
from penstock.metrics.families import GAUGES, KEYS, Family, booked, process, seen, spent
from penstock.metrics.ledger import Ledger


@pytest.mark.parametrize("metric", CATALOG.values(), ids=list(CATALOG))
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"penstock_[a-z][a-z_]*[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not metric.name.endswith(("_count", "_sum", "_bucket"))
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert "le" not in metric.labels
    assert metric.help.endswith(".")


def families() -> list[Family]:
    config = Config(nodes=tuple(Node(name=name, url=f"http://{name}", models=("m",)) for name in ("a", "b")))
    core = Core(config, Knobs(), random.Random(1))
    core.handle(NodeSeen("a", Signals(running=3, waiting=1, kv_usage=0.5)), 1.0)
    accounts = [Account(f"key{index}", (KeyLimit(tokens=100),)) for index in range(KEYS + 2)]
    for account in accounts:
        account.reserve("m", FREE, 10, 10, 1.0)
        account.reserve("m", FREE, 10, 100, 1.0)
    spending = spent(account.use(2.0) for account in accounts)
    return [*process("1", "compiled", 2.0, Host()), *booked(Ledger(config)), *seen(core.snapshot(2.0)), *spending]


def test_every_metric_is_written_once_and_there_are_more_than_twenty() -> None:
    names = [family.metric.name for family in families()]
    assert sorted(names) == sorted(CATALOG)
    assert len(names) > 20


def test_samples_have_a_value_for_each_label() -> None:
    for family in families():
        for labels, _ in family.samples:
            assert len(labels) == len(family.metric.labels)


def test_gauges_show_fields_that_nodes_have() -> None:
    for field in GAUGES.values():
        owner, _, name = field.rpartition(".")
        assert name in (Signals if owner else NodeSnapshot).__struct_fields__


def test_what_a_node_does_not_say_is_left_out() -> None:
    shown = {family.metric.name: dict(family.samples) for family in families()}
    assert shown["penstock_node_reported_kv_ratio"] == {("a",): 0.5}
    assert shown["penstock_node_state"][("b", "up")] == 1
    assert shown["penstock_node_state"][("b", "lost")] == 0


def test_keys_beyond_the_bound_are_summed_up() -> None:
    shown = {family.metric.name: dict(family.samples) for family in families()}
    running = shown["penstock_key_running"]
    assert len(running) == KEYS + 1
    assert (running["key0",], running["other",]) == (1, 2)
    assert shown["penstock_key_refusals_total"]["other", "tokens"] == 2
    assert shown["penstock_key_limit_used_ratio"]["key0", "tokens", "60"] == 0.2
