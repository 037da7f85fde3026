"""The books: every number about requests, derived from (event, actions, now) and from nothing else.

What is kept of a request goes when it ends; every table has a bound, and what is beyond it is summed up as `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from penstock.config import Config
from penstock.core.admission import PROMISED
from penstock.core.classify import DEFAULT, Classifier
from penstock.core.returns import MOST_S, Book, Key
from penstock.events import (
    Action,
    Arrived,
    Cancelled,
    ConfigReplaced,
    Divert,
    Event,
    Failed,
    Finished,
    FirstToken,
    Forward,
    Hedge,
    KnobsSet,
    NodeLost,
    Progress,
    Recall,
    Reject,
)
from penstock.facts import Outcome, Request
from penstock.metrics.books import ClassBook, JobBook, Live, NodeBook, TenantBook
from penstock.metrics.catalog import RETRIES, STEPS, TOKENS, WAITS
from penstock.metrics.histogram import Histogram

OTHER = "other"
COMPLETED = Outcome.COMPLETED
CLASSES, NODES, TENANTS, CODES, PROMISES = 256, 4_096, 64, 256, 1_024
"""Names kept apart in each table."""
LIVE = 250_000
"""Requests followed at a time; more than a gateway has connections, so only ends never told could fill it."""

Row = TypeVar("Row")


class Ledger:
    """`classify` names the class of a request that the core holds (`Core.task_class`). Without it, and for those that the core
    refused at once, the configuration's rules are asked again.
    """

    def __init__(self, config: Config, classify: Callable[[int], str | None] | None = None) -> None:
        self.live: dict[int, Live] = {}
        self.classes: dict[str, ClassBook] = {}
        self.nodes: dict[str, NodeBook] = {}
        self.tenants: dict[str, TenantBook] = {}
        self.answers: dict[int, int] = {}
        self.turned_away: dict[str, int] = {}
        self.cancellations = dict.fromkeys(("waiting", "running", "streaming"), 0)
        self.retry_after_s: dict[Outcome, Histogram] = {}
        self.promises: dict[Key, Book] = {}
        """When refused callers were told to come back, by tenant and class."""
        self.late_s, self.early_s = Histogram(WAITS), Histogram(WAITS)
        self.slower_s, self.faster_s = Histogram(STEPS), Histogram(STEPS)
        self.longer_tokens, self.shorter_tokens = Histogram(TOKENS), Histogram(TOKENS)
        self.knob_changes = self.config_changes = self.untracked = 0
        self.jobs = JobBook()
        self._class_of = classify
        self._configure(config)
        self._others: dict[type, Callable[[Any, float], None]] = {
            Failed: self._failed,
            Cancelled: self._cancelled,
            Progress: self._progress,
            NodeLost: self._node_lost,
            KnobsSet: self._knobs_set,
            ConfigReplaced: self._config_replaced,
        }

    def observe(self, event: Event, actions: Iterable[Action], now: float) -> None:
        """Book an event and the actions that answered it; `now` is the time the core was given."""
        kind = type(event)
        if kind is Finished:
            self._finished(event, now)  # type: ignore[arg-type]
        elif kind is Arrived:
            self._arrived(event.request, now)  # type: ignore[union-attr]
        elif kind is FirstToken:
            self._first_token(event, now)  # type: ignore[arg-type]
        elif kind in self._others:
            self._others[kind](event, now)
        for action in actions:
            if type(action) is Forward:
                self._forward(action, now)
            elif type(action) is Reject:
                self._reject(action, now)
            elif type(action) is Divert:
                self._divert(action)
            elif type(action) is Recall:
                self._recall(action)
            elif type(action) is Hedge:
                self._hedge(action)

    def turn_away(self, code: str) -> None:
        """Book a call that was answered with the error `code` (one of ours) and never reached the core."""
        if code not in self.turned_away and len(self.turned_away) >= CODES:
            code = OTHER
        self.turned_away[code] = self.turned_away.get(code, 0) + 1

    # -- a request's life

    def _arrived(self, request: Request, now: float) -> None:
        name = None if self._class_of is None else self._class_of(request.id)
        if name is None:
            name = self._classify(request).name
        book = self.classes.get(name) or self._class_book(name)
        book.arrivals += 1
        tenant = self.tenants.get(request.tenant) or _row(self.tenants, request.tenant, TENANTS, TenantBook)
        tenant.requests += 1
        followed = self.live
        if len(followed) >= LIVE:
            del followed[next(iter(followed))]
            self.untracked += 1
        live = followed[request.id] = Live(now, book, tenant, request.prompt_tokens, request.stream, key=(request.tenant, name))
        if self.promises and request.retry:
            live.returned = (promised := self.promises.get(live.key)) is not None and promised.take(now)

    def _forward(self, action: Forward, now: float) -> None:
        node = self.nodes.get(action.node) or _row(self.nodes, action.node, NODES, NodeBook)
        node.forwards += 1
        live = self.live.get(action.id)
        if live is None:
            return
        if live.failed:
            node.retries += 1
            if live.first >= 0:
                live.book.continued += 1
            live.failed = False
        if not live.forwards:
            live.book.queue_s.observe(now - live.arrived)
            if live.returned:
                live.book.returned["true"] += 1
                live.returned = False
        if action.rungs:
            live.climb(action.rungs)
        live.forwards += 1
        live.node = node
        why = action.why
        live.due = now + why[1] if len(why) > 1 else -1.0
        if len(why) > 6:
            live.output_tokens, live.itl_s = why[5], why[6]

    def _first_token(self, event: FirstToken, now: float) -> None:
        live = self.live.get(event.id)
        if live is None or live.first >= 0:
            return
        if event.node:
            live.decide(self.nodes.get(event.node))
            if not live.stream:
                return
        live.first = now
        live.book.ttft_s.observe(now - live.arrived)
        if live.due >= 0:
            late = now - live.due
            if late > 0:
                self.late_s.observe(late)
            else:
                self.early_s.observe(-late)

    def _finished(self, event: Finished, now: float) -> None:
        self.answers[event.status] = self.answers.get(event.status, 0) + 1
        live = self.live.pop(event.id, None)
        if live is None:
            return
        if event.node:
            live.decide(self.nodes.get(event.node))
        book = live.book
        book.outcomes[COMPLETED] += 1
        if event.status >= 400:
            return
        prompt, cached, output = event.prompt_tokens, event.cached_tokens, event.output_tokens
        if prompt < 0:
            prompt = live.prompt_tokens
        if cached < 0:
            cached = 0
        if output < 0:
            output = 0
        duration_s = now - live.arrived
        book.duration_s.observe(duration_s)
        book.prompt_tokens += prompt
        book.cached_tokens += cached
        book.output_tokens += output
        live.tenant.tokens += prompt + output
        if (node := live.node) is not None:
            node.prompt_tokens += prompt
            node.cached_tokens += cached
            node.output_tokens += output
        tpot_s = 0.0
        if live.first >= 0 and output > 1:
            tpot_s = (now - live.first) / (output - 1)
            book.tpot_s.observe(tpot_s)
            if live.itl_s > 0:
                (self.slower_s if tpot_s > live.itl_s else self.faster_s).observe(abs(tpot_s - live.itl_s))
        expected = live.output_tokens
        if output and expected > 0:
            if output > expected:
                self.longer_tokens.observe(output - expected)
            else:
                self.shorter_tokens.observe(expected - output)
        if book.bounded:
            _judge(live, book, duration_s, tpot_s)

    def _reject(self, action: Reject, now: float) -> None:
        live = self.live.pop(action.id, None)
        if live is None:
            return
        live.book.outcomes[action.outcome] += 1
        if action.outcome not in self.retry_after_s:
            self.retry_after_s[action.outcome] = Histogram(RETRIES)
        self.retry_after_s[action.outcome].observe(action.retry_after_s)
        if live.returned:
            live.book.returned["false"] += 1
        if action.outcome in PROMISED and action.retry_after_s <= MOST_S:
            self._promise(live.key, now + action.retry_after_s, now)

    def _promise(self, key: Key, at: float, now: float) -> None:
        promised = self.promises.get(key)
        if promised is None:
            if len(self.promises) >= PROMISES:
                for other, old in list(self.promises.items()):
                    old.lapse(now)
                    if not old.due:
                        del self.promises[other]
                if len(self.promises) >= PROMISES:
                    return
            promised = self.promises[key] = Book()
        promised.promise(at)

    def _divert(self, action: Divert) -> None:
        live = self.live.pop(action.id, None)
        if live is not None:
            live.climb(action.rungs)
            live.book.outcomes[Outcome.DIVERTED] += 1

    def _failed(self, event: Failed, now: float) -> None:
        live = self.live.get(event.id)
        if live is None or live.node is None:
            return
        second = live.second
        if second is not None:
            # The other of the two goes on alone.
            gone = self.nodes.get(event.node, live.node)
            gone.failures[event.failure] += 1
            live.decide(live.node if gone is second else second)
            return
        live.node.failures[event.failure] += 1
        live.node, live.due, live.failed = None, -1.0, True
        if not event.started:
            live.first = -1.0

    def _hedge(self, action: Hedge) -> None:
        node = self.nodes.get(action.node) or _row(self.nodes, action.node, NODES, NodeBook)
        node.forwards += 1
        live = self.live.get(action.id)
        if live is not None:
            live.book.hedges += 1
            live.second = node

    def _recall(self, action: Recall) -> None:
        live = self.live.get(action.id)
        if live is not None:
            live.book.recalls += 1
            live.node, live.due = None, -1.0

    def _cancelled(self, event: Cancelled, now: float) -> None:
        live = self.live.pop(event.id, None)
        if live is not None:
            live.book.outcomes[Outcome.CANCELLED] += 1
            self.cancellations["streaming" if live.first >= 0 else "waiting" if live.node is None else "running"] += 1

    # -- the fleet and its settings

    def _progress(self, event: Progress, now: float) -> None:
        if event.tokens > 0:
            _row(self.nodes, event.node, NODES, NodeBook).itl_s.observe(event.stream_s / event.tokens, event.tokens)

    def _node_lost(self, event: NodeLost, now: float) -> None:
        _row(self.nodes, event.node, NODES, NodeBook).losses += 1

    def _knobs_set(self, event: KnobsSet, now: float) -> None:
        self.knob_changes += 1

    def _config_replaced(self, event: ConfigReplaced, now: float) -> None:
        self.config_changes += 1
        self._configure(event.config)

    def _configure(self, config: Config) -> None:
        self._classify = Classifier(config.classes)
        self._tasks = {task.name: task for task in reversed(self._classify.classes)}
        for name, task in self._tasks.items():
            if name in self.classes:
                self.classes[name].follow(task)

    def _class_book(self, name: str) -> ClassBook:
        task = self._tasks.get(name, DEFAULT)
        return _row(self.classes, name, CLASSES, lambda: ClassBook(task))


def _row(table: dict[str, Row], name: str, most: int, make: Callable[[], Row]) -> Row:
    """The row called `name`, made when new; the common one when `most` names are kept apart already."""
    if name not in table and len(table) >= most:
        name = OTHER
    if name not in table:
        table[name] = make()
    return table[name]


def _judge(live: Live, book: ClassBook, duration_s: float, tpot_s: float) -> None:
    """Whether a successful answer kept what its class promises, as far as its bytes showed: a whole answer has no first token."""
    task = book.task
    met = duration_s <= task.total_s and tpot_s <= task.tpot_s
    if live.first >= 0:
        met = met and live.first - live.arrived <= task.first_s(live.prompt_tokens)
    if met:
        book.met += 1
    else:
        book.missed += 1
