"""The books against what was told: every request ends once in them, and nothing of it stays behind."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.config import Class, Config, Node, When
from penstock.core import Core
from penstock.events import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    ConfigReplaced,
    Event,
    Failed,
    Finished,
    FirstToken,
    Forward,
    KnobsSet,
    NodeDraining,
    NodeLost,
    NodeSeen,
    Progress,
    Reject,
    Tick,
)
from penstock.facts import Failure, Outcome, Request, Signals
from penstock.knobs import Knobs
from penstock.metrics import ledger as module
from penstock.metrics.families import booked
from penstock.metrics.ledger import PROMISES, Ledger

CONFIG = Config(
    nodes=tuple(Node(name=name, url=f"http://{name}", models=("m",), max_running=2) for name in ("a", "b")),
    classes=(Class(name="gold", when=When(tenant="rich"), ttft_ms=1_000, ttft_ms_per_1k=100, tpot_ms=50), Class(name="rest")),
)


def numbers(books: Ledger) -> dict[str, dict[tuple[str, ...], Any]]:
    return {family.metric.name: dict(family.samples) for family in booked(books)}


def request(id: int = 1, *, tenant: str = "rich", stream: bool = True, prompt_tokens: int = 100) -> Request:
    return Request(id, "m", tenant=tenant, stream=stream, prompt_tokens=prompt_tokens)


def forward(id: int = 1, node: str = "a", ready_s: float = 0.5) -> Forward:
    return Forward(id, node, (0.0, ready_s, 0.0, 0.0, 1.0))


def told(*story: tuple[float, Event, list[Action]]) -> Ledger:
    books = Ledger(CONFIG)
    for now, event, actions in story:
        books.observe(event, actions, now)
    return books


def test_streamed_answer_is_booked_from_arrival_to_end() -> None:
    books = told(
        (10.0, Arrived(request()), []),
        (10.2, Tick(), [forward(ready_s=0.5)]),
        (10.9, FirstToken(1), []),
        (10.95, FirstToken(1), []),
        (11.3, Finished(1, prompt_tokens=90, cached_tokens=64, output_tokens=11), []),
    )
    book = books.classes["gold"]
    assert (book.arrivals, book.outcomes[Outcome.COMPLETED], book.met, book.missed) == (1, 1, 1, 0)
    assert (book.prompt_tokens, book.cached_tokens, book.output_tokens) == (90, 64, 11)
    assert book.queue_s.sum == pytest.approx(0.2)
    assert book.ttft_s.sum == pytest.approx(0.9)
    assert book.duration_s.sum == pytest.approx(1.3)
    assert book.tpot_s.sum == pytest.approx(0.04)
    assert books.late_s.sum == pytest.approx(0.2)
    assert (books.nodes["a"].prompt_tokens, books.nodes["a"].cached_tokens, books.nodes["a"].output_tokens) == (90, 64, 11)
    assert (books.tenants["rich"].requests, books.tenants["rich"].tokens) == (1, 101)
    assert not books.live


@pytest.mark.parametrize(
    ("first", "end", "output", "met"),
    [(11.0, 11.04, 2, True), (11.009, 11.04, 2, True), (11.02, 11.04, 2, False), (10.5, 11.6, 11, False), (10.5, 20.0, 1, True)],
)
def test_an_answer_meets_its_deadlines_or_misses_them(first: float, end: float, output: int, met: bool) -> None:
    books = told((10.0, Arrived(request()), [forward()]), (first, FirstToken(1), []), (end, Finished(1, output_tokens=output), []))
    assert (books.classes["gold"].met, books.classes["gold"].missed) == (int(met), int(not met))


def test_total_deadline_is_judged_on_whole_answers() -> None:
    books = Ledger(Config(classes=(Class(name="batch", total_ms=500),)))
    for id, end in ((1, 0.4), (2, 0.6)):
        books.observe(Arrived(request(id, stream=False)), [forward(id)], 0.0)
        books.observe(Finished(id, output_tokens=5), [], end)
    assert (books.classes["batch"].met, books.classes["batch"].missed) == (1, 1)


def test_class_without_a_deadline_is_not_judged() -> None:
    books = told((0.0, Arrived(request(tenant="poor")), [forward()]), (9.0, Finished(1), []))
    assert numbers(books)["penstock_deadlines_total"] == {}


def test_first_token_before_its_time_is_early() -> None:
    books = told((0.0, Arrived(request()), [forward(ready_s=0.5)]), (0.2, FirstToken(1), []))
    assert books.early_s.sum == pytest.approx(0.3)
    assert books.late_s.count == 0


def test_forward_without_a_prediction_is_not_held_to_one() -> None:
    books = told((0.0, Arrived(request()), [Forward(1, "a")]), (0.2, FirstToken(1), []))
    assert books.early_s.count + books.late_s.count == 0


def test_engines_4xx_is_an_answer_without_tokens_or_latency() -> None:
    books = told((0.0, Arrived(request()), [forward()]), (1.0, Finished(1, status=404, prompt_tokens=5), []))
    book = books.classes["gold"]
    assert (book.outcomes[Outcome.COMPLETED], book.prompt_tokens, book.duration_s.count, book.met, book.missed) == (1, 0, 0, 0, 0)
    assert books.answers == {404: 1}


def test_unknown_usage_counts_the_estimate_and_no_output() -> None:
    books = told((0.0, Arrived(request(prompt_tokens=33)), [forward()]), (1.0, Finished(1), []))
    book = books.classes["gold"]
    assert (book.prompt_tokens, book.cached_tokens, book.output_tokens) == (33, 0, 0)


def test_answer_of_no_node_counts_for_its_class_alone() -> None:
    books = told((0.0, Arrived(request()), []), (1.0, Finished(1, output_tokens=4), []))
    assert books.classes["gold"].output_tokens == 4
    assert not books.nodes


def test_retry_is_a_second_forward_and_its_failure_is_the_first_nodes() -> None:
    books = told(
        (0.0, Arrived(request()), [forward(node="a")]),
        (0.1, Failed(1, Failure.RESET), [forward(node="b", ready_s=0.3)]),
        (0.4, FirstToken(1), []),
        (0.5, Finished(1), []),
    )
    assert (books.nodes["a"].forwards, books.nodes["a"].retries, books.nodes["a"].failures[Failure.RESET]) == (1, 0, 1)
    assert (books.nodes["b"].forwards, books.nodes["b"].retries) == (1, 1)
    assert books.classes["gold"].queue_s.count == 1


def test_refusal_is_booked_with_its_reason_and_wait() -> None:
    books = told((0.0, Arrived(request()), [Reject(1, Outcome.REFUSED_DEADLINE, 2.5)]))
    assert books.classes["gold"].outcomes[Outcome.REFUSED_DEADLINE] == 1
    assert books.retry_after_s[Outcome.REFUSED_DEADLINE].sum == 2.5
    assert not books.live


@pytest.mark.parametrize(("known", "stage"), [(0, "waiting"), (1, "running"), (2, "streaming")])
def test_cancellation_is_booked_by_its_stage(known: int, stage: str) -> None:
    books = Ledger(CONFIG)
    books.observe(Arrived(request()), [forward()] if known else [], 0.0)
    if known == 2:
        books.observe(FirstToken(1), [], 0.1)
    books.observe(Cancelled(1), [Cancel(1, "a")], 0.2)
    assert {name for name, count in books.cancellations.items() if count} == {stage}
    assert books.classes["gold"].outcomes[Outcome.CANCELLED] == 1


def test_inter_token_times_weigh_by_tokens() -> None:
    books = told((1.0, Progress("a", 90, 1.8), []), (2.0, Progress("a", 10, 0.8), []), (3.0, Progress("a", 0, 0.0), []))
    assert books.nodes["a"].itl_s.count == 100
    assert books.nodes["a"].itl_s.sum == pytest.approx(2.6)


def test_fleet_and_settings_events_are_counted() -> None:
    books = told((1.0, NodeLost("a"), []), (2.0, KnobsSet(Knobs()), []), (3.0, ConfigReplaced(CONFIG), []), (4.0, NodeDraining("a"), []))
    assert (books.nodes["a"].losses, books.knob_changes, books.config_changes) == (1, 1, 1)


def test_new_configuration_judges_by_its_own_deadlines() -> None:
    books = told((0.0, Arrived(request()), [forward()]), (0.1, Finished(1), []))
    books.observe(ConfigReplaced(Config(classes=(Class(name="gold"),))), [], 0.2)
    assert not books.classes["gold"].bounded


def test_class_is_the_cores_where_it_knows_the_request() -> None:
    books = Ledger(CONFIG, {1: "elsewhere"}.get)
    books.observe(Arrived(request(1)), [], 0.0)
    books.observe(Arrived(request(2)), [], 0.0)
    assert set(books.classes) == {"elsewhere", "gold"}


def test_events_of_unknown_requests_change_no_request_numbers() -> None:
    books = told(
        (0.0, FirstToken(9), []),
        (0.0, Failed(9, Failure.RESET), [forward(9)]),
        (0.0, Cancelled(9), []),
        (0.0, Finished(9), []),
        (0.0, Tick(), [Reject(9, Outcome.EXPIRED, 1.0)]),
    )
    assert not books.classes
    assert not books.live


def test_names_beyond_the_bounds_become_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("TENANTS", "NODES", "CODES"):
        monkeypatch.setattr(module, bound, 2)
    books = Ledger(CONFIG)
    for id in range(5):
        books.observe(Arrived(request(id, tenant=f"t{id}")), [forward(id, node=f"n{id}")], 0.0)
        books.turn_away(f"code{id}")
    assert set(books.tenants) == {"t0", "t1", "other"}
    assert books.tenants["other"].requests == 3
    assert set(books.nodes) == {"n0", "n1", "other"}
    assert books.turned_away == {"code0": 1, "code1": 1, "other": 3}


def test_requests_whose_end_is_never_told_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIVE", 3)
    books = Ledger(CONFIG)
    for id in range(5):
        books.observe(Arrived(request(id)), [], 0.0)
    assert list(books.live) == [2, 3, 4]
    assert books.untracked == 2


class Conservation(RuleBasedStateMachine):
    """A core, driven at will, with the books kept beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(CONFIG, Knobs(queue_max=3), random.Random(1))
        self.books = Ledger(CONFIG, self.core.task_class)
        self.now, self.next, self.arrived, self.ended = 0.0, 0, 0, 0
        self.forwarded: dict[int, str] = {}
        self.waiting: set[int] = set()

    def tell(self, event: Event) -> None:
        actions = self.core.handle(event, self.now)
        self.books.observe(event, actions, self.now)
        for action in actions:
            self.waiting.discard(action.id)
            if isinstance(action, Forward):
                self.forwarded[action.id] = action.node
            elif isinstance(action, Reject):
                self.ended += 1

    @rule(tenant=st.sampled_from(["rich", "poor"]), stream=st.booleans(), tokens=st.integers(1, 50_000))
    def arrive(self, tenant: str, stream: bool, tokens: int) -> None:
        self.next += 1
        self.arrived += 1
        self.waiting.add(self.next)
        self.tell(Arrived(request(self.next, tenant=tenant, stream=stream, prompt_tokens=tokens)))

    @rule(seconds=st.floats(0.0, 5.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    @rule(pick=st.integers(0, 99), status=st.sampled_from([200, 400, 429]))
    def finish(self, pick: int, status: int) -> None:
        if self.forwarded:
            id = sorted(self.forwarded)[pick % len(self.forwarded)]
            del self.forwarded[id]
            self.ended += 1
            self.tell(FirstToken(id))
            self.tell(Finished(id, status, output_tokens=pick))

    @rule(pick=st.integers(0, 99), failure=st.sampled_from(Failure), started=st.booleans())
    def fail(self, pick: int, failure: Failure, started: bool) -> None:
        if self.forwarded:
            id = sorted(self.forwarded)[pick % len(self.forwarded)]
            del self.forwarded[id]
            self.waiting.add(id)
            self.tell(Failed(id, failure, started))

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        alive = sorted({*self.forwarded, *self.waiting})
        if alive:
            id = alive[pick % len(alive)]
            self.forwarded.pop(id, None)
            self.waiting.discard(id)
            self.ended += 1
            self.tell(Cancelled(id))

    @rule(node=st.sampled_from(["a", "b"]), lost=st.booleans())
    def node_changes(self, node: str, lost: bool) -> None:
        self.tell(NodeLost(node) if lost else NodeSeen(node, Signals()))

    @invariant()
    def every_request_is_live_or_ended_once(self) -> None:
        arrivals = sum(book.arrivals for book in self.books.classes.values())
        outcomes = sum(sum(book.outcomes.values()) for book in self.books.classes.values())
        assert arrivals == self.arrived
        assert outcomes == self.ended
        assert arrivals == outcomes + len(self.books.live)
        assert set(self.books.live) == {*self.forwarded, *self.waiting}


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def tried(id: int, retry: int) -> Request:
    return msgspec.structs.replace(request(id), retry=retry)


def test_callers_who_come_back_when_told_are_counted_by_whether_they_got_in() -> None:
    ledger = Ledger(CONFIG)
    ledger.observe(Arrived(request(1)), [Reject(1, Outcome.REFUSED_DEADLINE, 4.0)], 10.0)
    ledger.observe(Arrived(request(2)), [Reject(2, Outcome.EXPIRED, 4.0)], 10.0)
    ledger.observe(Arrived(tried(3, 0)), [forward(3)], 14.0)
    ledger.observe(Arrived(tried(4, 1)), [forward(4)], 14.0)
    ledger.observe(Arrived(tried(5, 1)), [], 14.1)
    ledger.observe(Tick(), [Reject(5, Outcome.EXPIRED, 2.0)], 15.0)
    ledger.observe(Arrived(tried(6, 1)), [forward(6)], 30.0)
    assert ledger.classes["gold"].returned == {"true": 1, "false": 1}
    assert numbers(ledger)["penstock_returns_total"] == {("gold", "true"): 1, ("gold", "false"): 1}


def test_promises_that_are_followed_are_bounded() -> None:
    ledger = Ledger(CONFIG)
    for id in range(PROMISES + 50):
        ledger.observe(Arrived(request(id, tenant=str(id))), [Reject(id, Outcome.REFUSED_FULL, 1.0)], 10.0)
    assert len(ledger.promises) == PROMISES
    ledger.observe(Arrived(request(0, tenant="new")), [Reject(0, Outcome.REFUSED_FULL, 1.0)], 100.0)
    assert list(ledger.promises) == [("new", "rest")]
