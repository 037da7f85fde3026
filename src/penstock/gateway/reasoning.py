"""What models think, at the gateway: brought into form on its way out, remembered behind tool calls, put back where a client dropped it.

DeepSeek's thinking mode wants the `reasoning_content` of a message with tool calls back in all later requests, and answers 400 without
it; most clients drop it. So it is kept by the id of the call, apart for each tenant, and goes back only to the model that thought it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from xxhash import xxh3_128_digest

from penstock import config
from penstock.facts import Route
from penstock.wire import openai, thinking
from penstock.wire.reasoning import Habit, Thoughts, shows, whole
from penstock.wire.toolcalls import ID_CHARS, ToolCall, meaning, put_back

if TYPE_CHECKING:
    from penstock.gateway.call import Call
    from penstock.gateway.node import Node

ENTRY_BYTES = 512
"""What a memory takes beside its text."""
HABITS = 1_024
"""Pairs of node and model whose habits are known; the oldest are learned again."""


class Memory:
    """The thoughts behind one tool call."""

    __slots__ = ("at", "bytes", "meaning", "model", "text")

    def __init__(self, at: float, model: str, text: str, called: bytes) -> None:
        self.at = at
        self.model = model
        self.text = text
        self.meaning = called
        """Digest of what was called with what."""
        self.bytes = len(text.encode(errors="replace")) + ENTRY_BYTES


class Memories:
    """By tenant and id of the call; bounded in bytes and age. The tenant that has the most gives up its oldest."""

    def __init__(self, most_bytes: int, age_s: float) -> None:
        self.most_bytes, self.age_s = most_bytes, age_s
        self.tenants: dict[str, OrderedDict[str, Memory]] = {}
        self.used: dict[str, int] = {}
        self.bytes = 0

    def put(self, tenant: str, model: str, calls: Iterable[ToolCall], text: str, now: float) -> None:
        for call in calls:
            if not call.id or len(call.id) > ID_CHARS:
                continue
            memory = Memory(now, model, text, xxh3_128_digest(meaning(call)))
            self._drop(tenant, call.id)
            if memory.bytes > self.most_bytes:
                continue
            self.tenants.setdefault(tenant, OrderedDict())[call.id] = memory
            self.used[tenant] = self.used.get(tenant, 0) + memory.bytes
            self.bytes += memory.bytes
        self._bound(tenant, now)

    def get(self, tenant: str, model: str, calls: Iterable[ToolCall], now: float) -> str | None:
        own = self.tenants.get(tenant)
        if own is None:
            return None
        for call in calls:
            memory = own.get(call.id or "")
            if memory is None or memory.model != model or memory.meaning != xxh3_128_digest(meaning(call)):
                continue
            if now - memory.at <= self.age_s:
                return memory.text
        return None

    def _bound(self, tenant: str, now: float) -> None:
        own = self.tenants.get(tenant)
        while own and now - next(iter(own.values())).at > self.age_s:
            self._drop(tenant, next(iter(own)))
        while self.bytes > self.most_bytes:
            largest = max(self.used, key=self.used.__getitem__)
            self._drop(largest, next(iter(self.tenants[largest])))

    def _drop(self, tenant: str, id: str) -> None:
        own = self.tenants.get(tenant)
        if own is None or (gone := own.pop(id, None)) is None:
            return
        self.bytes -= gone.bytes
        self.used[tenant] -= gone.bytes
        if not own:
            del self.tenants[tenant], self.used[tenant]


class Reasoning:
    """What is done about thoughts, for all calls of a gateway."""

    def __init__(self, settings: config.Reasoning) -> None:
        self.normalise = settings.normalise
        self.memories = Memories(settings.bytes, settings.age_s)
        self._habits: OrderedDict[tuple[str, str, bool | None], Habit] = OrderedDict()

    # --- a request's way

    def restored(self, tenant: str, ask: openai.Call, body: bytes) -> bytes:
        """The body of a call that was read, with the thoughts that its client dropped; the same object where none are known."""
        if tenant not in self.memories.tenants or ask.thinks is False or b'"tool_calls"' not in body:
            return body
        now = time.monotonic()
        return put_back(body, lambda calls: self.memories.get(tenant, ask.model, calls, now))

    def body(self, ask: openai.Call, node: Node) -> bytes:
        """What to send to a node."""
        return thinking.spoken(ask.body, _engine(node), ask.thinks) if ask.thinks is not None else ask.body

    # --- an answer's way

    def thoughts(self, call: Call) -> Thoughts | None:
        """What to do about the thoughts in a streamed answer; None: nothing."""
        ask = call.ask
        if call.route is not Route.CHAT or not (self.normalise or ask.tools):
            return None
        node = call.node
        assert node is not None
        inside = False if ask.structured or _engine(node) in _IN_FORM else None
        return Thoughts(self._habit(call, node), normalise=self.normalise, collect=ask.tools, inside=inside)

    def streamed(self, call: Call, thoughts: Thoughts) -> None:
        """A stream has come to its end."""
        if call.ask.tools:
            self._remember(call, thoughts.remembered())

    def whole(self, call: Call, body: bytes) -> bytes:
        """A JSON answer in form."""
        if not shows(body) or call.route is not Route.CHAT or not (self.normalise or call.ask.tools):
            return body
        node = call.node
        assert node is not None
        body, found = whole(body, self._habit(call, node), normalise=self.normalise)
        if found:
            self._remember(call, found)
        return body

    def _remember(self, call: Call, found: list[tuple[list[ToolCall], str]]) -> None:
        now = time.monotonic()
        for calls, text in found:
            self.memories.put(call.tenant, call.ask.model, calls, text, now)

    def _habit(self, call: Call, node: Node) -> Habit:
        ask = call.ask
        key = (node.config.name, ask.model, ask.thinks)
        habit = self._habits.get(key)
        if habit is None:
            habit = self._habits[key] = Habit(ask.model, ask.thinks)
            if len(self._habits) > HABITS:
                self._habits.popitem(last=False)
        return habit


def _engine(node: Node) -> config.Engine:
    return node.dialect.engine


_IN_FORM = frozenset({config.Engine.DEEPSEEK, config.Engine.OPENAI})
"""Hosted APIs, which take thoughts out themselves."""
