"""Whatever happens, in whatever order: every request ends once, and the books balance."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.playbook import build, call

from penstock.config import Class, Node, Rung, When
from penstock.core import Core
from penstock.events import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    Divert,
    Event,
    Failed,
    Finished,
    FirstToken,
    Forward,
    Hedge,
    KnobsSet,
    NodeDraining,
    NodeLost,
    NodeSeen,
    Progress,
    Recall,
    Reject,
    Tick,
)
from penstock.facts import Failure, Form, Request, Signals
from penstock.knobs import Knobs

NODES = ("a", "b", "c")
RULES = (
    Class(name="high", priority=5, ttft_ms=800, tpot_ms=50, when=When(tenant="x")),
    Class(name="whole", total_ms=2_000, when=When(tenant="y")),
    Class(name="rest", priority=1),
)

LADDERS = (
    Class(name="high", priority=5, ttft_ms=800, tpot_ms=50, when=When(tenant="x"), ladder=(Rung.CACHE, Rung.WAIT, Rung.SMALLER)),
    Class(name="whole", total_ms=2_000, when=When(tenant="y"), ladder=(Rung.SMALLER, Rung.WAIT, Rung.TICKET)),
    Class(name="rest", priority=1, ladder=(Rung.SMALLER, Rung.TICKET)),
)

steps = st.lists(
    st.tuples(
        st.sampled_from("arrive arrive arrive first finish finish fail cancel seen lost drain progress knobs tick".split()),
        st.integers(0, 10_000),
        st.floats(0, 1.5),
    ),
    max_size=120,
)


class Driver:
    """Keeps the books a driver would keep, and checks each action against them."""

    def __init__(self, core: Core) -> None:
        self.core, self.now = core, 0.0
        self.waiting: set[int] = set()
        self.running: dict[int, str] = {}
        self.ended: set[int] = set()
        self.visible: set[int] = set()
        self.recalls: dict[int, int] = {}
        self.twins: dict[int, str] = {}
        """Second nodes of requests that are on two."""
        self.broken: dict[int, int] = {}
        """Tokens of streams that broke off and may go on."""
        self.next_id = 0

    def send(self, event: Event) -> None:
        self.act(self.core.handle(event, self.now))
        assert self.core.deadline > self.now or self.core.waiting
        books(self)

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Forward):
                self.waiting.remove(action.id)
                self.running[action.id] = action.node
            elif isinstance(action, Reject):
                assert 0.5 <= action.retry_after_s <= 120
                self.waiting.remove(action.id)
                self.end(action.id)
            elif isinstance(action, Divert):
                assert action.id not in self.broken, "who reads already is given the rest, or an error"
                assert action.rung == action.rungs[-1]
                self.waiting.remove(action.id)
                self.end(action.id)
            elif isinstance(action, Recall):
                assert self.running.pop(action.id) == action.node
                assert action.id not in self.visible and action.id not in self.broken, "a visible stream is never cut"
                self.recalls[action.id] = self.recalls.get(action.id, 0) + 1
                assert self.recalls[action.id] <= self.core.knobs.recalls
                self.waiting.add(action.id)
            elif isinstance(action, Hedge):
                assert action.id not in self.broken
                assert action.node != self.running[action.id] and action.id not in self.twins | dict.fromkeys(self.visible)
                self.twins[action.id] = action.node
            else:
                assert isinstance(action, Cancel)

    def decide(self, id: int, second: bool) -> str:
        """One of the two nodes of a request goes on; its name, which is told only where there are two."""
        twin = self.twins.pop(id, None)
        if twin is None:
            return ""
        if second:
            self.running[id] = twin
        return self.running[id]

    def end(self, id: int) -> None:
        assert id not in self.ended
        self.ended.add(id)


def books(driver: Driver) -> None:
    core = driver.core
    assert set(core.flights) == driver.waiting | set(driver.running)
    assert core.waiting == len(driver.waiting) == sum(len(lane.queue) for lane in core.by_pool.values())
    for node in core.nodes:
        mine = [id for nodes in (driver.running, driver.twins) for id, name in nodes.items() if name == node.name]
        assert node.running == len(mine) and set(node.memory.held) == set(mine)
        assert 0 <= node.prefilling <= node.running
        assert node.running <= node.max_running
    if driver.waiting:
        assert core.deadline < inf, "someone waits and no Tick is asked for"


def arrival(id: int, number: int) -> Request:
    blocks = tuple(number % 4 * 100 + depth for depth in range(number % 7))
    ladder = None if number % 11 else ("wait", "ticket")[: number % 3]
    return call(
        id,
        tokens=1 + number,
        tenant="xyz"[number % 3],
        stream=number % 2 == 0,
        blocks=blocks,
        max_tokens=number % 50,
        cached=number % 5 == 0,
        ticket=number % 4 < 2,
        ladder=ladder,
    )


def laddered() -> Core:
    """Two nodes for the model that is asked for, two for the smaller one, one of them the same."""
    models = {"a": ("m",), "b": ("m", "s"), "c": ("s",)}
    nodes = (Node(name=name, url="http://127.0.0.1:9", max_running=2, kv_tokens=20_000, models=of) for name, of in models.items())
    return build(*nodes, rules=LADDERS, smaller={"m": "s"})


def event_of(driver: Driver, step: str, number: int) -> Event | None:
    running = sorted(driver.running)
    some = running[number % len(running)] if running else None
    node = NODES[number % 3]
    if step == "arrive":
        driver.next_id += 1
        driver.waiting.add(driver.next_id)
        return Arrived(arrival(driver.next_id, number))
    if step == "cancel":
        alive = sorted(driver.waiting | set(driver.running))
        if not alive:
            return None
        id = alive[number % len(alive)]
        driver.waiting.discard(id)
        driver.running.pop(id, None)
        driver.twins.pop(id, None)
        driver.end(id)
        return Cancelled(id)
    if step in ("first", "finish", "fail"):
        if some is None:
            return None
        if step == "fail" and some in driver.twins:
            gone = driver.twins[some] if number % 2 else driver.running[some]
            driver.decide(some, second=number % 2 == 0)
            return Failed(some, list(Failure)[number % len(Failure)], node=gone)
        node = driver.decide(some, second=number % 2 == 0)
        if step == "first":
            if driver.core.flights[some].request.stream:
                driver.visible.add(some)
            return FirstToken(some, node)
        driver.running.pop(some)
        if step == "finish":
            driver.end(some)
            return Finished(some, 200 if number % 3 else 400, number, number % 600, number % 100, node)
        driver.waiting.add(some)
        failure = list(Failure)[number % len(Failure)]
        if some in driver.broken or (some in driver.visible and number % 4):
            driver.broken[some] = driver.broken.get(some, 0) + (number % 40 if some in driver.visible else 0)
            driver.visible.discard(some)
            return Failed(some, failure, True, form=Form.CHAT if number % 9 else None, emitted_tokens=driver.broken[some])
        driver.visible.discard(some)
        return Failed(some, failure, started=number % 4 == 0)
    models, continues = ("m",) if number % 5 == 0 else None, (Form.CHAT,) if number % 7 else ()
    seen = Signals(waiting=number % 8, kv_usage=0.5, models=models, continues=continues)
    table: dict[str, Event] = {
        "seen": NodeSeen(node, seen),
        "lost": NodeLost(node),
        "drain": NodeDraining(node),
        "progress": Progress(node, number, number / 50),
        "knobs": KnobsSet(Knobs(depth_s=number / 10_000, queue_max=1 + number % 20, scan=1 + number % 8)),
        "tick": Tick(),
    }
    return table[step]


@settings(max_examples=200)
@given(steps)
def test_every_request_ends_once_and_the_books_balance(steps: list[tuple[str, int, float]]) -> None:
    nodes = tuple(Node(name=name, url="http://127.0.0.1:9", max_running=3, kv_tokens=20_000) for name in NODES)
    driver = Driver(build(*nodes, rules=RULES))
    for step, number, wait in steps:
        driver.now += wait
        event = event_of(driver, step, number)
        if event is not None:
            driver.send(event)
    finish_all(driver)
    assert driver.ended == set(range(1, driver.next_id + 1))


@settings(max_examples=300)
@given(steps)
def test_on_every_rung_requests_end_once_and_the_books_balance(steps: list[tuple[str, int, float]]) -> None:
    driver = Driver(laddered())
    for step, number, wait in steps:
        driver.now += wait / 4
        event = event_of(driver, step, number)
        if event is not None:
            driver.send(event)
            assert driver.core.handle(Tick(), driver.now) == [], "a second pass at the same moment does nothing"
    finish_all(driver)
    assert driver.ended == set(range(1, driver.next_id + 1))


def finish_all(driver: Driver) -> None:
    for _ in range(10_000):
        if driver.running:
            id = min(driver.running)
            name = driver.decide(id, second=False)
            driver.running.pop(id)
            driver.end(id)
            driver.send(Finished(id, node=name))
        elif driver.waiting:
            driver.now = max(driver.now, driver.core.deadline)
            driver.send(Tick())
        else:
            return
    raise AssertionError(f"{len(driver.waiting)} wait for ever")


@given(steps)
def test_a_second_pass_at_the_same_moment_does_nothing(steps: list[tuple[str, int, float]]) -> None:
    driver = Driver(build(*NODES, rules=RULES))
    for step, number, wait in steps:
        driver.now += wait
        event = event_of(driver, step, number)
        if event is not None:
            driver.send(event)
            assert driver.core.handle(Tick(), driver.now) == []


@given(steps, st.integers(0, 5))
def test_same_events_and_seed_give_the_same_actions(steps: list[tuple[str, int, float]], seed: int) -> None:
    first, second = Driver(build(*NODES, rules=RULES)), build(*NODES, rules=RULES)
    for step, number, wait in steps:
        first.now += wait
        event = event_of(first, step, number)
        if event is not None:
            actions = first.core.handle(event, first.now)
            assert actions == second.handle(event, first.now)
            first.act(actions)
