"""Asks each engine about each second whether it lives and how full it is.

What an engine does not offer is not held against it: any HTTP answer but a 5xx from /health shows that it lives, and one without
/metrics is judged by what we gave it. A node that is called lost keeps its answers in flight: those fail by themselves, or flow.
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
from penstock.wire import continuation, prom

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
    """One node's rounds: /health, then /metrics, now and then /v1/models."""

    __slots__ = ("_ask", "_every_s", "_loop", "_misses", "_mute", "_node", "_round", "_signals", "_tell", "_timer", "_upstream", "lost")

    def __init__(self, node: Node, limits: Limits, every_s: float, tell: Callable[[Event], None]) -> None:
        self._node, self._every_s, self._tell = node, every_s, tell
        self._loop = asyncio.get_running_loop()
        # Its own connections: a probe must not wait behind calls, nor inherit their patience.
        impatient = msgspec.structs.replace(limits, first_byte_s=ANSWER_S, idle_s=ANSWER_S)
        self._upstream = Upstream(node.config.url, impatient, ca=node.config.ca, sni=node.config.sni, loop=self._loop)
        self._round = self._misses = 0
        self._mute = False
        """It has no /metrics."""
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
        if status == 0 or status >= 500:
            refused = self._ask is not None and self._ask.refused
            self._missed("refused the connection" if refused else f"answered {status}" if status else "did not answer", refused)
        elif self._asks_models():
            self._ask = Ask(self._upstream, self._node.models, self._listed)
        else:
            self._measure()

    def _asks_models(self) -> bool:
        node, rare = self._node.config, self._round % RARE == 0
        return (rare and (not node.models or node.engine is Engine.AUTO)) or (not node.models and self._signals.models is None)

    def _listed(self, status: int, body: bytes) -> None:
        models = _names(body) if status == 200 else None
        if models and not self._node.config.models:
            self._signals = msgspec.structs.replace(self._signals, models=models)
        if models:
            self._node.way = continuation.way(self._node.config.engine, _owner(body))
        self._measure()

    def _measure(self) -> None:
        if self._mute and self._round % RARE:
            self._seen(self._signals)
        else:
            self._ask = Ask(self._upstream, self._node.metrics, self._measured)

    def _measured(self, status: int, body: bytes) -> None:
        self._mute = status in (404, 405, 501)
        signals = prom.read(body) if status == 200 else Signals()
        # Numbers of an earlier round would be taken for news: what was not reported now is unknown.
        self._seen(msgspec.structs.replace(signals, models=self._signals.models, continues=self._node.way.forms))

    def _seen(self, signals: Signals) -> None:
        self._signals = signals
        self._misses = 0
        if self.lost:
            self.lost = False
            log.info("node %s is back", self._node.config.name)
        self._tell(NodeSeen(self._node.config.name, signals))
        self._again()

    def _missed(self, what: str, at_once: bool) -> None:
        self._misses += 1
        if not self.lost and (at_once or self._misses >= MISSES):
            self.lost = True
            log.warning("node %s is lost: %s %s", self._node.config.name, self._node.config.url, what)
            self._tell(NodeLost(self._node.config.name))
        self._again()

    def _again(self) -> None:
        self._ask = None
        self._round += 1
        wait_s = self._every_s * random.uniform(1 - JITTER, 1 + JITTER)
        self._timer = self._loop.call_later(wait_s, self._begin)


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


_models = msgspec.json.Decoder(_Models)


def _names(body: bytes) -> tuple[str, ...] | None:
    """The names in an answer of /v1/models; None when it is something else."""
    try:
        names = tuple(model.id for model in _models.decode(body).data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return tuple(dict.fromkeys(name for name in names if 0 < len(name) <= NAME_CHARACTERS))[:NAMES]


def _owner(body: bytes) -> str:
    """Whose the models in an answer of /v1/models are: servers name themselves there."""
    data = _models.decode(body).data
    return (data[0].owned_by or "") if data else ""


def _nothing(event: Event) -> None:
    """Where news of a closed watch goes."""
