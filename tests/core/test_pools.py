"""Where the core has requests run: in their pools, and in those that their ladders lead to."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.core.test_invariants import Driver, finish_all
from tests.playbook import NOTHING, Play, build, call, forward, reject

from penstock.config import Class, Config, Node, Pool, PoolWhen, Range, Rung, When
from penstock.core import Core
from penstock.core.members import Members
from penstock.core.route import ALL
from penstock.events import (
    Action,
    Arrived,
    Cancelled,
    ConfigReplaced,
    Failed,
    Finished,
    FirstToken,
    Forward,
    Hedge,
    NodeLost,
    NodeSeen,
    Tick,
)
from penstock.facts import Failure, Outcome, Request, Signals
from penstock.knobs import Knobs

HUGE = 100_000
LARGE = PoolWhen(prompt_tokens=Range(gt=2_000))


def node(name: str, *models: str, **more: Any) -> Node:
    return Node(name=name, url="http://127.0.0.1:9", models=models or ("m",), **more)


def pool(name: str, **more: Any) -> Pool:
    """A pool of one node, of the same name."""
    return Pool(name=name, nodes=(name,), **more)


def chained(*ladder: str, **more: Any) -> Core:
    """Pools of one node with one slot each; a falls back on b, b on c."""
    rules = (Class(name="tight", ttft_ms=1_000, ladder=tuple(map(Rung, ladder))),)
    pools = pool("a", fallback="b", when=PoolWhen(tenant="x")), pool("b", fallback="c", when=PoolWhen(tenant="y")), pool("c")
    return build(*(node(name, max_running=1) for name in "abc"), rules=rules, pools=pools, **more)


def mine(id: int, **facts: Any) -> Arrived:
    """Of the pool a."""
    return Arrived(call(id, tenant="x", **facts))


# --- which pool


@pytest.mark.parametrize(
    ("when", "facts"),
    [
        (PoolWhen(model="m*"), {}),
        (PoolWhen(prompt_tokens=Range(gt=2_000)), {"tokens": 2_001}),
        (PoolWhen(difficulty=Range(ge=0.5)), {"difficulty": 0.5}),
        (PoolWhen(tenant="x"), {"tenant": "x"}),
        (PoolWhen(task="tra*"), {"tenant": "desk"}),
        (PoolWhen(session="s*"), {"session": "s1"}),
        (PoolWhen(route="completions"), {"route": "completions"}),
        (PoolWhen(stream=False), {"stream": False}),
        (PoolWhen(header={"X-Kind": "hard"}), {"headers": {"x-kind": "hard"}}),
        (PoolWhen(metadata={"n": Range(gt=5)}), {"metadata": {"n": "6"}}),
    ],
)
def test_each_condition_leads_to_its_pool(when: PoolWhen, facts: dict[str, Any]) -> None:
    rules = (Class(name="trade", when=When(tenant="desk")),)
    play = Play(build(node("a"), node("b"), rules=rules, pools=(pool("a", when=when), pool("b"))))
    play >> Arrived(call(1, **facts)) << forward(1, "a")
    if when.model is None:
        play >> Arrived(call(2)) << forward(2, "b")


def test_each_pool_has_a_queue_of_its_own() -> None:
    play = Play(build(node("a", max_running=1), node("b", max_running=1), pools=(pool("a", when=LARGE), pool("b"))))
    play >> Arrived(call(1, tokens=3_000)) << forward(1, "a") >> Arrived(call(2, tokens=3_000)) << NOTHING
    play >> Arrived(call(3)) << forward(3, "b") >> Arrived(call(4)) << NOTHING
    shown = {lane.pool: lane.waiting for lane in play.core.snapshot(0.0).lanes}
    assert shown == {"a": 1, "b": 1}
    play >> Finished(3) << forward(4, "b")
    play >> Finished(1) << forward(2, "a")


def test_a_node_found_later_joins_the_pool_of_its_labels() -> None:
    pools = (Pool(name="fast", labels={"kind": "fast"}, when=PoolWhen(tenant="x")), Pool(name="rest", nodes=("b",)))
    core = build(node("b"), pools=pools)
    play = Play(core)
    play >> mine(1) << forward(1, "b")
    play >> ConfigReplaced(Config(nodes=(node("b"), node("new", labels={"kind": "fast"})), pools=pools)) << NOTHING
    play >> mine(2) << forward(2, "new")


def test_a_node_that_says_what_it_serves_opens_its_pool_for_that() -> None:
    pools = (pool("a", when=PoolWhen(tenant="x")), pool("b"))
    play = Play(build(Node(name="a", url="http://127.0.0.1:9"), node("b", "m"), pools=pools))
    play >> NodeSeen("a", Signals(models=("other",))) << NOTHING
    play >> mine(1) << forward(1, "b")
    play >> mine(2, model="other") << forward(2, "a")


def test_a_model_that_a_pool_names_is_not_served_by_others_who_may_have_it() -> None:
    play = Play(
        build(Node(name="a", url="http://127.0.0.1:9"), Node(name="b", url="http://127.0.0.1:9"), pools=(pool("a", models=("m",)),))
    )
    play >> NodeSeen("a", Signals(models=("n",))) << NOTHING
    assert not play.core.serves("m") and play.core.serves("x")
    play >> Arrived(call(1)) << reject(1, Outcome.UNAVAILABLE)


def test_the_smaller_model_is_served_in_the_pool_that_its_requests_belong_to() -> None:
    rules = (Class(name="tight", ttft_ms=1_000, ladder=(Rung.WAIT, Rung.SMALLER)),)
    pools = (Pool(name="small", nodes=("b",), when=PoolWhen(model="s")), Pool(name="rest", nodes=("a", "c")))
    core = build(node("a", "m", max_running=1), node("b", "s"), node("c", "s"), rules=rules, smaller={"m": "s"}, pools=pools)
    core.nodes[1].token_s = 1e-6
    Play(core) >> Arrived(call(1, tokens=HUGE)) << Forward(1, "b", model="s", rungs=("smaller",))


def test_in_a_large_pool_a_node_of_another_that_has_just_become_free_is_no_candidate() -> None:
    names = [f"n{index}" for index in range(ALL + 4)]
    core = build(*map(node, names), pools=(Pool(name="most", nodes=tuple(names[2:])),))
    lane = core.by_pool["m", "most"]
    assert core.nodes[1] not in core.router.candidates(lane.nodes, {1: 3}, 4, core.nodes[1])
    assert core.nodes[5] in core.router.candidates(lane.nodes, {}, 0, core.nodes[5])


def test_in_a_large_pool_the_node_that_has_the_prefix_is_found() -> None:
    names = [f"n{index}" for index in range(2 * ALL + 4)]
    core = build(*map(node, names), pools=(Pool(name="second", nodes=tuple(names[ALL:])),), knobs=Knobs(sample=1))
    blocks = tuple(range(20))
    core.prefixes.insert(ALL + 9, blocks)
    Play(core) >> Arrived(call(1, tokens=20 * 512, blocks=blocks)) << forward(1, f"n{ALL + 9}")


# --- the rung sibling


def test_who_cannot_be_served_in_time_goes_to_the_pool_that_its_own_falls_back_on() -> None:
    core = chained("wait", "sibling")
    core.nodes[1].token_s = 1e-6
    Play(core) >> mine(1, tokens=HUGE) << Forward(1, "b", rungs=("sibling",))


def test_who_waited_in_vain_goes_there_while_there_is_time_and_is_told_both() -> None:
    play = Play(chained("wait", "sibling"))
    play >> mine(1) << forward(1, "a") >> mine(2) << NOTHING
    while not play.pending:
        play.to_deadline() >> Tick()
    play << Forward(2, "b", rungs=("wait", "sibling"))
    assert 0.5 < play.now < 0.8


def test_before_wait_the_sibling_is_tried_before_the_queue() -> None:
    play = Play(chained("sibling", "wait"))
    play >> mine(1) << forward(1, "a") >> mine(2) << Forward(2, "b", rungs=("sibling",))
    play >> mine(3) << NOTHING
    assert play.core.by_pool["m", "a"].queue.size == 1


def test_one_pool_of_the_chain_is_tried_for_each_rung() -> None:
    play = Play(chained("sibling", "sibling"))
    play >> mine(1) << forward(1, "a") >> mine(2) << Forward(2, "b", rungs=("sibling",))
    play >> mine(3) << Forward(3, "c", rungs=("sibling",))
    play >> mine(4) << reject(4, Outcome.REFUSED_FULL)


def test_who_failed_on_the_sibling_goes_on_from_there() -> None:
    play = Play(chained("sibling", "sibling"))
    play >> mine(1) << forward(1, "a")
    play >> Failed(1, Failure.RESET) << Forward(1, "b", rungs=("sibling",))
    play >> Failed(1, Failure.RESET) << Forward(1, "c", rungs=("sibling", "sibling"))
    play >> Failed(1, Failure.RESET) << reject(1, Outcome.FAILED)


def test_a_pool_of_the_chain_without_the_model_is_passed_over() -> None:
    pools = pool("a", fallback="b"), pool("b", fallback="c"), pool("c")
    core = build(node("a", max_running=1), node("b", "n"), node("c"), ladder=(Rung.SIBLING,), pools=pools)
    Play(core) >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << Forward(2, "c", rungs=("sibling",))


def test_without_a_fallback_the_rung_is_passed() -> None:
    play = Play(chained("sibling"))
    play >> Arrived(call(1)) << forward(1, "c") >> Arrived(call(2)) << reject(2, Outcome.REFUSED_FULL)


def test_nobody_is_left_waiting_where_all_nodes_of_the_pool_are_lost() -> None:
    play = Play(chained("wait", "sibling"))
    play >> NodeLost("a") << NOTHING >> mine(1) << NOTHING
    play.to_deadline() >> Tick() << Forward(1, "b", rungs=("wait", "sibling"))


# --- lanes that go


def test_who_waits_in_a_pool_that_is_gone_waits_in_the_one_it_belongs_to_now() -> None:
    play = Play(chained("wait"))
    play >> mine(1) << forward(1, "a") >> mine(2) << NOTHING
    play.at(0.1) >> ConfigReplaced(Config(nodes=(node("c"),), classes=play.core.config.classes, pools=(pool("c"),))) << forward(2, "c")


@pytest.mark.parametrize(("model", "after"), [("m", forward(1, "c")), ("other", reject(1, Outcome.FAILED))])
def test_who_runs_there_is_tried_again_where_it_belongs_now_or_refused(model: str, after: Action) -> None:
    play = Play(chained("wait"))
    play >> mine(1) << forward(1, "a")
    play >> ConfigReplaced(Config(nodes=(node("c", model),), classes=play.core.config.classes, pools=(pool("c"),))) << NOTHING
    assert play.core.flights[1].waits == (model == "m"), "nobody is called back who could not wait anywhere"
    play >> Failed(1, Failure.BUSY) << after
    assert not play.core.waiting


def test_nobody_is_sent_to_nodes_of_a_lane_that_is_gone() -> None:
    play = Play(build(node("a"), node("b")))
    play >> Arrived(call(1))
    assert len(play.pending) == 1
    play.pending.clear()
    play >> ConfigReplaced(Config(nodes=(node("c", "other"),))) << NOTHING
    play >> Failed(1, Failure.RESET) << reject(1, Outcome.FAILED)


# --- whatever happens

NAMES = ("a", "b", "c", "d")
WHENS = (
    PoolWhen(),
    PoolWhen(tenant="x"),
    PoolWhen(task="high"),
    LARGE,
    PoolWhen(difficulty=Range(ge=0.5)),
    PoolWhen(session="*"),
    PoolWhen(model="s", stream=True),
)
RULES = (
    Class(name="high", priority=5, ttft_ms=800, when=When(tenant="x")),
    Class(name="whole", total_ms=2_000, when=When(tenant="y"), ladder=(Rung.SIBLING, Rung.SMALLER, Rung.WAIT)),
    Class(name="rest", priority=1),
)
MODELS: tuple[tuple[str, ...], ...] = ((), ("m",), ("s",), ("m", "s"))


@st.composite
def fleets(draw: Any) -> tuple[Config, dict[str, Pool]]:
    """Nodes with any models and labels, some not told yet; pools with any rules and fallbacks, in a chain."""
    nodes = tuple(
        Node(
            name=name,
            url="http://127.0.0.1:9",
            models=draw(st.sampled_from(MODELS)),
            labels={"kind": draw(st.sampled_from("uv"))},
            max_running=2,
            kv_tokens=20_000,
        )
        for name in NAMES
    )
    count = draw(st.integers(0, 4))
    pools = tuple(
        Pool(
            name=f"p{index}",
            nodes=tuple(draw(st.sets(st.sampled_from(NAMES), max_size=2))),
            labels=draw(st.sampled_from([{}, {"kind": "u"}, {"kind": "v"}])),
            models=draw(st.sampled_from([(), (), ("m",), ("m", "s")])),
            when=draw(st.sampled_from(WHENS)),
            fallback=f"p{index + 1}" if index + 1 < count and draw(st.booleans()) else None,
        )
        for index in range(count)
    )
    ladder = draw(st.lists(st.sampled_from((Rung.WAIT, Rung.SIBLING, Rung.SIBLING, Rung.SMALLER)), max_size=4))
    kept = [rung for index, rung in enumerate(ladder) if rung is Rung.SIBLING or rung not in ladder[:index]]
    return Config(nodes=nodes, classes=RULES, pools=pools, ladder=tuple(kept), smaller={"m": "s"}), {one.name: one for one in pools}


steps = st.lists(
    st.tuples(
        st.sampled_from("arrive arrive arrive finish first fail fail cancel seen lost told tick again".split()),
        st.integers(0, 9_999),
        st.floats(0, 0.5),
    ),
    max_size=80,
)


class Watched(Driver):
    """Knows what each request is, and checks every node that it is given to against the rules, worked out once more."""

    def __init__(self, config: Config, pools: dict[str, Pool]) -> None:
        super().__init__(Core(config, Knobs(), random.Random(1)))
        self.whole = self.config = config
        self.pools = pools
        self.requests: dict[int, Request] = {}

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Forward | Hedge):
                assert action.node in self.allowed(action), (action, self.requests[action.id])
        super().act(actions)

    def allowed(self, action: Forward | Hedge) -> set[str]:
        """Nodes of the request's pool, and of those that its fallbacks lead to, for its model or the smaller one."""
        request, flight = self.requests[action.id], self.core.flights[action.id]
        found: set[str] = set()
        for model in {request.model, flight.model}:
            asked = Request(**{field: getattr(request, field) for field in request.__struct_fields__} | {"model": model})
            home = self.home(asked)
            found |= home[1]
            if "sibling" in flight.taken:
                for name in self.chain(home[0]):
                    found |= self.able([one for one in self.core.nodes if Members(self.pools[name]).has(one.config)], model)
        return found

    def home(self, request: Request) -> tuple[str, set[str]]:
        task = self.core.classify(request)
        for one in self.config.pools:
            rules = Members(one)
            inside = self.able([other for other in self.core.nodes if rules.has(other.config)], request.model)
            if rules.names(request.model) and inside and rules.takes(request, task):
                return one.name, inside
        naming = [Members(one) for one in self.config.pools if request.model in one.models]
        left = [other for other in self.core.nodes if not naming or any(rules.has(other.config) for rules in naming)]
        return "", self.able(left, request.model)

    def able(self, nodes: Any, model: str) -> set[str]:
        return {one.name for one in nodes if one.models is None or model in one.models}

    def chain(self, name: str) -> list[str]:
        found = []
        while name and (following := self.pools[name].fallback) is not None:
            found.append(following)
            name = following
        return found


def take(driver: Watched, step: str, number: int) -> None:
    some = sorted(driver.running)
    id = some[number % len(some)] if some else 0
    name = NAMES[number % 4]
    if step == "arrive":
        driver.next_id += 1
        id = driver.next_id
        facts: dict[str, Any] = {
            "tenant": "xyz"[number % 3],
            "difficulty": number % 5 / 4,
            "session": "s" * (number % 2),
            "stream": number % 7 < 4,
        }
        driver.requests[id] = call(id, model="ms"[number % 5 == 0], tokens=1 + number % 4_000, **facts)
        driver.waiting.add(id)
        driver.send(Arrived(driver.requests[id]))
    elif step == "seen":
        driver.send(NodeSeen(name, Signals(running=0)))
    elif step == "lost":
        driver.send(NodeLost(name))
    elif step == "told":
        driver.send(NodeSeen(name, Signals(models=MODELS[1 + number % 3])))
    elif step == "tick":
        driver.send(Tick())
    elif step == "again":
        # Under the name of one that is gone none comes back while the old one still answers somebody.
        busy = {*driver.running.values(), *driver.twins.values()}
        nodes = tuple(
            one for one in driver.whole.nodes if (number % 2 or one.name != name) and (one in driver.config.nodes or one.name not in busy)
        )
        driver.config = replace(driver.whole, nodes=nodes)
        driver.send(ConfigReplaced(driver.config))
    elif step == "cancel":
        alive = sorted(driver.waiting | set(driver.running))
        if alive:
            id = alive[number % len(alive)]
            driver.waiting.discard(id)
            driver.running.pop(id, None)
            driver.twins.pop(id, None)
            driver.end(id)
            driver.send(Cancelled(id))
    elif id:
        answer(driver, step, id, number)


def answer(driver: Watched, step: str, id: int, number: int) -> None:
    """What an engine does."""
    if step == "fail" and id in driver.twins:
        return
    node = driver.decide(id, second=number % 2 == 0)
    if step == "first":
        driver.send(FirstToken(id, node))
        return
    del driver.running[id]
    if step == "finish":
        driver.end(id)
        driver.send(Finished(id, node=node))
    else:
        driver.waiting.add(id)
        driver.send(Failed(id, list(Failure)[number % 6]))


@settings(max_examples=300, deadline=None)
@given(fleets(), steps)
def test_each_request_ends_once_and_runs_only_where_its_pool_and_its_ladder_lead(
    fleet: tuple[Config, dict[str, Pool]], steps: list[tuple[str, int, float]]
) -> None:
    driver = Watched(*fleet)
    for step, number, wait in steps:
        driver.now += wait
        take(driver, step, number)
    finish_all(driver)
    assert driver.ended == set(range(1, driver.next_id + 1))
