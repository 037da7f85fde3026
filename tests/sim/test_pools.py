"""A configuration's pools over simulated machines."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sim.fleet import world
from tests.sim.test_command import ROOT, simulate

from penstock.config import Class, Config, Node, Pool, PoolWhen, Range, Rung
from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.pools import stand_in
from penstock.sim.setting import Setting
from penstock.sim.world import World


def node(name: str, *models: str, **labels: str) -> Node:
    return Node(name=name, url=f"http://{name}", models=models, labels=labels)


def machines(count: int) -> list[Node]:
    return [node(f"n{index}", "model") for index in range(count)]


FILE = Config(
    nodes=(node("a", kind="fast"), node("b"), node("c")),
    pools=(
        Pool(name="fast", labels={"kind": "fast"}, when=PoolWhen(tenant="x"), fallback="rest"),
        Pool(name="rest", nodes=("b", "c")),
    ),
)


def test_machines_stand_for_the_nodes_in_turn_and_are_in_their_pools() -> None:
    nodes, (fast, rest) = stand_in(machines(7), FILE)
    assert [one.name for one in nodes if one.labels] == ["n0", "n3", "n6"]
    assert (fast.nodes, rest.nodes) == ((), ("n1", "n4", "n2", "n5"))


def test_without_pools_machines_stay_what_they_are() -> None:
    assert stand_in(machines(2), Config(nodes=FILE.nodes)) == (tuple(machines(2)), ())


@pytest.mark.parametrize(
    ("configured", "asked", "served"),
    [(("m",), ("m", "n"), ("m", "n")), (("m", "o"), ("n",), ("m", "o", "n")), ((), ("n",), ("n", "p"))],
)
def test_a_model_that_no_configured_node_names_is_served_by_all(
    configured: tuple[str, ...], asked: tuple[str, ...], served: tuple[str, ...]
) -> None:
    given = Config(nodes=(node("a", *configured), node("b", "p")), pools=(Pool(name="p", nodes=("a",)),))
    nodes, _ = stand_in([node("n0", *asked), node("n1", *asked)], given)
    assert nodes[0].models == served


def simulated(config: Config, arrivals: list[Arrival], **more: Any) -> World:
    return world(arrivals, nodes=len(config.nodes), setting=Setting(config=config, classes=config.classes), **more)


def test_requests_run_in_their_pools() -> None:
    arrivals = [Arrival(index * 0.2, 100, 5, tenant="xy"[index % 2]) for index in range(30)]
    made = simulated(FILE, arrivals)
    assert {(trip.arrival.tenant, trip.node) for trip in made.trips} == {("x", 0), ("y", 1), ("y", 2)}


def test_what_its_own_pool_cannot_serve_in_time_runs_in_the_sibling() -> None:
    rules = (Class(name="c", ttft_ms=1_000, ladder=(Rung.WAIT, Rung.SIBLING)),)
    config = Config(nodes=FILE.nodes, pools=FILE.pools, classes=rules)
    arrivals = [Arrival(0.0, 400, 20, tenant="x") for _ in range(6)]
    with_it = simulated(config, arrivals)
    assert {trip.node for trip in with_it.trips} >= {0, 1, 2}
    without = simulated(Config(nodes=FILE.nodes, pools=FILE.pools, classes=(Class(name="c", ttft_ms=1_000),)), arrivals)
    done = [sum(trip.outcome is Outcome.COMPLETED for trip in made.trips) for made in (without, with_it)]
    assert done[0] < done[1]


def test_difficulty_is_estimated_where_a_rule_asks_for_it() -> None:
    pools = (Pool(name="hard", nodes=("a",), when=PoolWhen(difficulty=Range(ge=0.5))), Pool(name="rest", nodes=("b", "c")))
    config = Config(nodes=FILE.nodes, pools=pools)
    said = Arrival(9.0, 100, 5, metadata={"difficulty": "0.9"})
    made = simulated(config, [Arrival(0.0, 4_000, 5), Arrival(5.0, 100, 5), said])
    assert [trip.node == 0 for trip in made.trips] == [True, False, True]


# --- the command


def test_a_configuration_with_pools_brings_its_own_nodes() -> None:
    done = simulate("--scenario", "chat", "--limit", 100, "--config", ROOT / "examples" / "pools.yaml")
    assert done.returncode == 0 and done.stdout.startswith("100 requests in") and " on 5 x deepseek-v3-h200-tp8;" in done.stdout


def test_too_few_machines_for_the_pools_are_refused() -> None:
    done = simulate("--scenario", "chat", "--nodes", 3, "--config", ROOT / "examples" / "pools.yaml")
    assert done.returncode == 2
    assert done.stderr == "penstock: --nodes 3: the configuration's pools are made of its 5 nodes: give no fewer\n"
