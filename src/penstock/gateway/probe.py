"""Asks each engine about each second whether it lives and how full it is, in its own dialect (`wire/dialect`).

What an engine does not offer is not held against it: any HTTP answer but a 5xx from its health page shows that it lives, and one without
metrics is judged by what we gave it. Hosted APIs have neither: now and then their list of models is asked for. A node that is called
lost keeps its answers in flight: those fail by themselves, or flow.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping

import msgspec

from penstock.config import Engine, Limits
from penstock.events import Event, NodeLost, NodeSeen
from penstock.facts import Failure, Signals
from penstock.gateway.node import Node
from penstock.http1 import Call, Upstream
from penstock.wire import continuation, dialect, iterations, prom

log = logging.getLogger("penstock.gateway")

ANSWER_S = 3.0
"""Longest a probe may take."""
MISSES = 3
"""Probes missed in a row before a node counts as lost; a refused connection needs one."""
ANSWER_BYTES = 4 << 20
JITTER = 0.1
RARE = 15
"""What seldom changes (models, or that there is no /metrics) is asked each so many rounds."""

NAMES, NAME_CHARACTERS = 1_000, 256
"""What an engine says is input: of its models no more than this is believed."""

Then = Callable[[int, bytes], None]


class Ask:
    """One GET; calls `then(status, body)` once, with status 0 when no answer came."""

    __slots__ = ("_body", "_call", "_size", "_status", "_then", "_timer", "refused")

    def __init__(self, upstream: Upstream, head: bytes, then: Then) -> None:
        self._then = then
        self._status = self._size = 0
        self._body: list[bytes] = []
        self.refused = False
        self._call: Call = upstream.request(head, b"", self)
        self._timer = asyncio.get_running_loop().call_later(ANSWER_S, self.cancel)

    def cancel(self) -> None:
        self._call.cancel()
        self._end(0)

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > ANSWER_BYTES:
            self.cancel()
        else:
            self._body.append(data)

    def on_end(self) -> None:
        self._end(self._status)

    def on_failure(self, failure: Failure, detail: str) -> None:
        self.refused = failure is Failure.CONNECT and "[Errno 111]" in detail
        self._end(0)

    def _end(self, status: int) -> None:
        self._timer.cancel()
        self._then(status, b"".join(self._body))


class Watch:
    """One node's rounds: its health page, then its metrics, now and then its models; a hosted API's models alone."""

    __slots__ = (
        "_ask", "_every_s", "_late", "_loop", "_misses", "_mute", "_node", "_owner", "_page", "_refused", "_round", "_signals", "_tell",
        "_timer", "_upstream", "lost",
    )  # fmt: skip

    def __init__(self, node: Node, limits: Limits, every_s: float, tell: Callable[[Event], None]) -> None:
        self._node, self._every_s, self._tell = node, every_s, tell
        self._loop = asyncio.get_running_loop()
        # Its own connections: a probe must not wait behind calls, nor inherit their patience.
        impatient = msgspec.structs.replace(limits, first_byte_s=ANSWER_S, idle_s=ANSWER_S)
        self._upstream = Upstream(node.config.url, impatient, ca=node.config.ca, sni=node.config.sni, loop=self._loop)
        self._round = self._misses = self._page = 0
        """`_page` is the one of its pages of metrics that is read."""
        self._mute = False
        """It has no metrics that we can read."""
        self._late = False
        """Its health page did not answer in this round; its metrics must."""
        self._refused = False
        """It does not take our key."""
        self._owner = ""
        """Whose its models are: servers name themselves there."""
        self.lost = False
        self._signals = Signals(models=node.config.models or None, continues=node.way.forms)
        self._ask: Ask | None = None
        self._timer: asyncio.TimerHandle | None = self._loop.call_soon(self._begin)  # type: ignore[assignment]

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tell = _nothing
        if self._ask is not None:
            self._ask.cancel()
            if self._timer is not None:
                self._timer.cancel()
        self._upstream.close()

    def _begin(self) -> None:
        self._ask = Ask(self._upstream, self._node.health, self._healthy)

    def _healthy(self, status: int, body: bytes) -> None:
        spoken, refused = self._node.dialect, self._ask is not None and self._ask.refused
        if spoken.engine is Engine.AUTO and status >= 500:
            spoken = self._learn(dialect.by_health(body))
        self._late = status == 0 and spoken.waits and not refused
        if status == 0 and not self._late:
            self._missed("refused the connection" if refused else "did not answer", refused)
        elif status in spoken.unready:
            self._missed(f"answered {status}", True, "not ready")
        elif spoken.health == "":
            self._listed_for_life(status, body)
        elif status >= 500:
            self._missed(f"answered {status}", False)
        elif self._asks_models():
            self._ask = Ask(self._upstream, self._node.models, self._listed)
        else:
            self._measure()

    def _asks_models(self) -> bool:
        """Where nobody says which models it has, or nothing else shows what it is."""
        rare = self._round % RARE == 0
        if not self._node.config.models:
            return self._signals.models is None or rare
        return rare and self._node.config.engine == Engine.AUTO

    def _listed(self, status: int, body: bytes) -> None:
        listed = _listing(body) if status == 200 else None
        if listed is not None:
            self._owner = listed.owners[0] if listed.owners else ""
            if self._node.dialect.engine is Engine.AUTO:
                self._learn(next(filter(None, map(dialect.by_owner, listed.owners)), None))
            if listed.names and not self._node.config.models:
                self._signals = msgspec.structs.replace(self._signals, models=listed.names)
        self._measure()

    def _listed_for_life(self, status: int, body: bytes) -> None:
        """Its list of models is all it has to show that it lives; too many questions, or too much to do, are signs of life."""
        if status >= 500 and status not in self._node.dialect.busy:
            self._missed(f"answered {status}", False)
            return
        refused = status in (401, 403)
        if refused and not self._refused:
            log.warning(
                "node %s does not take the key in its key_env: %s answered %d", self._node.config.name, self._node.config.url, status
            )
        self._refused = refused
        self._listed(status, body)

    def _learn(self, found: dialect.Dialect | None) -> dialect.Dialect:
        """It turned out to be an engine of that kind; its API stays where it was found."""
        node = self._node
        if found is not None:
            node.speak(msgspec.structs.replace(found, api=node.dialect.api, models=node.dialect.models))
            self._page, self._mute = 0, False
            log.info("node %s is %s", node.config.name, found.engine)
        return node.dialect

    def _measure(self) -> None:
        pages = self._node.metrics
        if not pages or (self._mute and self._round % RARE and not self._late):
            self._seen(Signals())
        else:
            self._ask = Ask(self._upstream, pages[self._page % len(pages)], self._measured)

    def _measured(self, status: int, body: bytes) -> None:
        if self._late and status == 0:
            self._missed("did not answer", False)
            return
        if self._node.dialect.engine is Engine.AUTO and status == 200:
            self._learn(dialect.by_metrics(body))
        signals = self._read(body) if status == 200 else Signals()
        if status in (404, 405, 501) or (status == 200 and signals == Signals() and not body.startswith(b"[")):
            # The next round asks for its other page, where it has one.
            self._page += 1
            self._mute = self._page % len(self._node.metrics) == 0
        elif status == 200:
            self._mute = False
        self._seen(signals)

    def _read(self, body: bytes) -> Signals:
        spoken = self._node.dialect
        return iterations.read(body) if body.startswith(b"[") else prom.read(body, spoken if spoken.prefix else None)

    def _seen(self, signals: Signals) -> None:
        # Numbers of an earlier round would be taken for news: what was not reported now is unknown.
        engine = self._node.dialect.engine
        known = None if engine is Engine.AUTO else str(engine)
        embedded = self._owner == continuation.EMBEDDED and self._node.config.engine == Engine.AUTO
        way = self._node.way = continuation.way(continuation.EMBEDDED if embedded else engine)
        self._signals = msgspec.structs.replace(signals, models=self._signals.models, engine=known, continues=way.forms)
        self._misses = 0
        if self.lost:
            self.lost = False
            log.info("node %s is back", self._node.config.name)
        self._tell(NodeSeen(self._node.config.name, self._signals))
        self._again()

    def _missed(self, what: str, at_once: bool, state: str = "lost") -> None:
        self._misses += 1
        config = self._node.config
        if not self.lost and (at_once or self._misses >= MISSES):
            self.lost = True
            log.warning("node %s is %s: %s %s", config.name, state, config.url, what)
            self._tell(NodeLost(config.name))
            # What comes back may be something else.
            self._node.speak(dialect.of(config.engine, config.url))
            self._page, self._mute = 0, False
        self._again()

    def _again(self) -> None:
        self._ask = None
        self._round += 1
        wait_s = self._every_s
        if self._misses:
            wait_s = min(wait_s * 2 ** min(self._misses, 10), max(wait_s, self._node.dialect.every_s))
        else:
            wait_s = max(wait_s, self._node.dialect.every_s)
        self._timer = self._loop.call_later(wait_s * random.uniform(1 - JITTER, 1 + JITTER), self._begin)


class Prober:
    """A watch for each node."""

    def __init__(self, nodes: Iterable[Node], limits: Limits, every_s: float, tell: Callable[[Event], None]) -> None:
        self.watches = [Watch(node, limits, every_s, tell) for node in nodes]

    def close(self) -> None:
        for watch in self.watches:
            watch.close()


class _Model(msgspec.Struct, gc=False):
    id: str
    owned_by: str | None = None


class _Models(msgspec.Struct, gc=False):
    data: list[_Model]


class _Listing(msgspec.Struct, frozen=True, gc=False):
    """What a list of models says."""

    names: tuple[str, ...]
    owners: tuple[str, ...]


_models = msgspec.json.Decoder(_Models)


def _listing(body: bytes) -> _Listing | None:
    """What an answer of /v1/models says; None when it is something else."""
    try:
        models = _models.decode(body).data[:NAMES]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    names = dict.fromkeys(model.id for model in models if 0 < len(model.id) <= NAME_CHARACTERS)
    return _Listing(tuple(names), tuple(dict.fromkeys(model.owned_by for model in models if model.owned_by)))


def _nothing(event: Event) -> None:
    """Where news of a closed watch goes."""
