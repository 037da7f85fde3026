"""Limits and budgets of keys at the door: who may come in now, what the others are told, and what each answer says is left.

The sums are `core/account`'s. Here are the clock, the header lines, and the claim that follows a call to its end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from math import ceil, inf
from typing import TYPE_CHECKING

from penstock.config import Config
from penstock.core.account import CONCURRENCY, COST, REQUESTS, TOKENS, Account, Meter, Prices, Reserved, Shortage, accounts
from penstock.core.window import Window
from penstock.events import Finished, Reject
from penstock.facts import KeyUse, Route
from penstock.gateway.refusal import LONGEST_RETRY_S
from penstock.wire import openai

if TYPE_CHECKING:
    from penstock.gateway.call import Call

JITTER = 0.1
"""Waits told are longer than needed by up to this share, so that refused calls do not return at once."""
SHORTEST_S = 0.05
CODES = {
    REQUESTS: "rate_limit_exceeded",
    TOKENS: "rate_limit_exceeded",
    COST: "insufficient_quota",
    CONCURRENCY: "concurrency_limit_exceeded",
}
TYPES = {REQUESTS: "requests", TOKENS: "tokens", COST: "insufficient_quota", CONCURRENCY: "rate_limit_error"}


class Held:
    """What a call under way holds of a key with limits."""

    __slots__ = ("account", "held")

    def __init__(self, account: Account, held: Reserved) -> None:
        self.account = account
        self.held = held

    def end(self, call: Call, event: Finished | Reject | None) -> None:
        """The call ended: with an answer, a refusal, or None when its caller left."""
        now, account, held = time.monotonic(), self.account, self.held
        if isinstance(event, Finished):
            if 400 <= event.status < 500:
                account.release(held, request=False)
            else:
                account.settle(call.ask.model, held, event.prompt_tokens, event.cached_tokens, _output(call, event), now)
        elif _worked(call, event):
            account.settle(call.ask.model, held, -1, 0, _seen(call), now)
        else:
            account.release(held)


class Purse:
    """A key without limits: what its calls spend is added up, and nothing is held."""

    __slots__ = ("account", "prices")

    def __init__(self, account: Account, prices: Prices) -> None:
        self.account = account
        self.prices = prices

    def end(self, call: Call, event: Finished | Reject | None) -> None:
        if isinstance(event, Finished):
            if 400 <= event.status < 500:
                self.account.requests += 1
                return
            prompt, cached, output = event.prompt_tokens, event.cached_tokens, event.output_tokens
            if output < 0 or call.route is Route.EMBEDDINGS:
                output = 0
        elif _worked(call, event):
            prompt, cached, output = -1, 0, max(_seen(call), 0)
        else:
            return
        self.account.book(self.prices.of(call.ask.model), prompt if prompt >= 0 else call.ask.prompt_tokens, cached, output)


def _output(call: Call, event: Finished) -> int:
    return 0 if call.route is Route.EMBEDDINGS else event.output_tokens


def _worked(call: Call, event: Reject | None) -> bool:
    """Whether an engine's work reached a caller, or was under way for one who left. What engines failed is nobody's to pay."""
    return call.flowing or (event is None and call.node is not None)


def _seen(call: Call) -> int:
    """Output tokens of an answer that was cut; -1 where they cannot be seen."""
    if call.relay is not None:
        return call.relay.tokens
    return 0 if call.ask.stream or call.route is Route.EMBEDDINGS else -1


class Gauge:
    """One window in OpenAI's headers."""

    __slots__ = ("before", "between", "whole", "window")

    def __init__(self, window: Window, before: bytes, between: bytes, whole: bytes) -> None:
        self.window = window
        self.before = before
        """What stands before the number that is left, and between it and the time."""
        self.between = between
        self.whole = whole
        """The window's length: the time until it is reset, seen from its last use."""

    def line(self, now: float) -> bytes:
        window = self.window
        left, reset_s = window.limit - window.used(now), window.reset_s(now)
        reset = self.whole if reset_s == window.length_s else duration(reset_s)
        return b"%b%d%b%b\r\n" % (self.before, left if left > 0 else 0, self.between, reset)


class Limited:
    """A key with limits, at the door."""

    __slots__ = ("_gauges", "_prices", "account")

    def __init__(self, account: Account, prices: Prices) -> None:
        self.account, self._prices = account, prices
        kinds = ([_gauge(meter) for meter in account.meters if meter.kind == kind] for kind in (REQUESTS, TOKENS))
        self._gauges = [gauges for gauges in kinds if gauges]

    def claim(self, route: Route, ask: openai.Call) -> Held | Shortage:
        """Reserve what a call may use."""
        tariff = self._prices.of(ask.model)
        most = 0 if route is Route.EMBEDDINGS else ask.max_tokens * ask.choices or None
        held = self.account.reserve(ask.model, tariff, ask.prompt_tokens, most, time.monotonic())
        return Held(self.account, held) if isinstance(held, Reserved) else held

    def lines(self, now: float) -> bytes:
        """Header lines; of several windows of a kind those of the one with the least share left."""
        text = b""
        for gauges in self._gauges:
            tightest = gauges[0] if len(gauges) == 1 else max(gauges, key=lambda gauge: gauge.window.used(now) / gauge.window.limit)
            text += tightest.line(now)
        return text


def _gauge(meter: Meter) -> Gauge:
    kind, window = meter.kind.encode(), meter.window
    before = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: " % (kind, window.limit, kind)
    return Gauge(window, before, b"\r\nx-ratelimit-reset-%b: " % kind, duration(window.length_s))


class Limits:
    """All keys' limits, and what all keys have spent."""

    __slots__ = ("_accounts", "_purses", "_random", "limited")

    def __init__(self, config: Config, names: Iterable[str], seed: int | None = None) -> None:
        """`names`: all tenants that keys stand for, those of the environment among them."""
        self._accounts = accounts(config.keys, names)
        self._random = random.Random(seed)
        prices = Prices(config.prices)
        self.limited = {name: Limited(account, prices) for name, account in self._accounts.items() if account.limited}
        """By tenant; one that is not among them has no limits."""
        self._purses = {name: Purse(account, prices) for name, account in self._accounts.items() if not account.limited}

    def purse(self, tenant: str) -> Purse | None:
        """For a tenant without limits; None where no keys are configured."""
        return self._purses.get(tenant)

    def jittered(self, wait_s: float) -> float:
        return max(SHORTEST_S, wait_s) * (1 + JITTER * self._random.random())

    def use(self) -> tuple[KeyUse, ...]:
        now = time.monotonic()
        return tuple(account.use(now) for account in self._accounts.values())


def duration(seconds: float) -> bytes:
    """As OpenAI writes it: `12ms`, `1s`, `8.64s`, `6m0s`, `24h0m0s`; rounded up."""
    ms = ceil(seconds * 1000)
    if ms < 1000:
        return b"%dms" % ms if ms else b"0s"
    whole, part = divmod(ms, 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = b"%d" % second + (b".%03d" % part).rstrip(b"0") if part else b"%d" % second
    if hours:
        return b"%dh%dm%bs" % (hours, minute, text)
    return b"%dm%bs" % (minute, text) if minute else text + b"s"


def refusal(shortage: Shortage, wait_s: float) -> tuple[bytes, bytes]:
    """Header lines and body of a 429. `wait_s` is what the caller is told; infinite when the call can never come in."""
    never = wait_s == inf
    retry = b"x-should-retry: %b\r\n" % (b"true" if wait_s <= LONGEST_RETRY_S else b"false")
    facts: dict[str, object] = {
        "limit_kind": shortage.kind, "limit": _number(shortage.limit), "used": _number(shortage.used), "requested": _number(shortage.asked),
    }  # fmt: skip
    if shortage.window_s:
        facts["window_s"] = shortage.window_s
    if not never:
        ms = ceil(wait_s * 1000)
        retry = b"retry-after: %d\r\nretry-after-ms: %d\r\n%b" % (ceil(wait_s), ms, retry)
        facts["retry_after_ms"] = ms
    body = openai.error(429, CODES[shortage.kind], _message(shortage, wait_s), None, type=TYPES[shortage.kind], **facts)
    return b"content-type: application/json\r\n" + retry, body


def _message(shortage: Shortage, wait_s: float) -> str:
    limit, used, asked = _number(shortage.limit), _number(shortage.used), _number(shortage.asked)
    if shortage.kind == CONCURRENCY:
        return f"This key may have {limit} {'request' if limit == 1 else 'requests'} under way at once, and has. Retry in {wait_s:.1f} s."
    window = f"{shortage.window_s:g} s"
    if wait_s == inf:
        fix = "Ask for less: a shorter prompt or a smaller max_tokens." if shortage.kind != REQUESTS else "It allows none."
        return f"Too large for this key: it needs {asked} {shortage.kind}, and the limit is {limit} in {window}. {fix}"
    return f"This key's limit of {limit} {shortage.kind} in {window} is reached: used {used}, requested {asked}. Retry in {wait_s:.1f} s."


def _number(value: float) -> float:
    """Whole numbers without a point; costs with no more digits than mean something."""
    return int(value) if value == int(value) else float(f"{value:.9g}")
