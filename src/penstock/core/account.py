"""What a key may use, what it has reserved, and what it has spent.

A call reserves before it is sent, all or nothing: one request, its estimated prompt with the most output it may ask for, and their
price. At its end it is settled with what the engine counted. Costs are whole billionths of a millionth (pico) of the currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf

from penstock.config import Key, KeyLimit, Price
from penstock.core.window import Slot, Window
from penstock.facts import KeyUse, WindowUse

PICO = 10**12
REQUESTS, TOKENS, COST, CONCURRENCY = "requests", "tokens", "cost", "concurrency"
GUESS_TOKENS = 256.0
"""Output expected of a model that has not answered yet, where the caller names no most."""
LEARN = 0.05
GUESS_S = 1.0
"""How long a call lasts, before any has ended."""
MODELS = 1_024
"""Models whose lengths and prices are kept."""


class Tariff:
    """Pico of the currency for a token."""

    __slots__ = ("cached", "output", "prompt")

    def __init__(self, prompt: int = 0, cached: int = 0, output: int = 0) -> None:
        self.prompt = prompt
        self.cached = cached
        self.output = output

    def cost(self, prompt: int, cached: int, output: int) -> int:
        return (prompt - cached) * self.prompt + cached * self.cached + output * self.output


FREE = Tariff()


class Prices:
    """The tariff of each model: that of the first name in the configuration that matches; free where none does."""

    __slots__ = ("_known", "_prices")

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = [(name, _tariff(price)) for name, price in prices.items()]
        self._known: dict[str, Tariff] = {}

    def of(self, model: str) -> Tariff:
        if not self._prices:
            return FREE
        found = self._known.get(model)
        if found is None:
            found = next((tariff for name, tariff in self._prices if fnmatchcase(model, name)), FREE)
            if len(self._known) < MODELS:
                self._known[model] = found
        return found


def _tariff(price: Price) -> Tariff:
    cached = price.input_per_1m if price.cached_per_1m is None else price.cached_per_1m
    return Tariff(*(round(per_1m * PICO / 1_000_000) for per_1m in (price.input_per_1m, cached, price.output_per_1m)))


Amounts = tuple[int, int, int]
"""Requests, tokens, cost."""


class Meter:
    __slots__ = ("at", "kind", "window")

    def __init__(self, kind: str, at: int, window: Window) -> None:
        self.kind = kind
        self.at = at
        """Of its amount among `Amounts`."""
        self.window = window

    def shown(self, amount: int) -> float:
        """In the units of the configuration."""
        return amount / PICO if self.kind == COST else amount


class Shortage:
    """Why a call may not come in now."""

    __slots__ = ("asked", "kind", "limit", "used", "wait_s", "window_s")

    def __init__(self, kind: str, used: float, limit: float, asked: float, window_s: float, wait_s: float) -> None:
        self.kind = kind
        self.used = used
        self.limit = limit
        self.asked = asked
        self.window_s = window_s
        self.wait_s = wait_s
        """Until there is room; infinite when there never will be."""


class Reserved:
    """What one call holds of its account."""

    __slots__ = ("amounts", "at", "output", "prompt", "slots", "tariff")

    def __init__(self, tariff: Tariff, prompt: int, output: int, amounts: Amounts, at: float, slots: list[Slot]) -> None:
        self.tariff = tariff
        self.prompt = prompt
        self.output = output
        self.amounts = amounts
        self.at = at
        self.slots = slots
        """One for each meter of the account."""


class Account:
    """One key's. Without limits it only keeps the sum of what is spent."""

    __slots__ = (
        "_high", "_mean_s", "cached_tokens", "concurrency", "cost", "limited", "meters", "name", "output_tokens", "prompt_tokens",
        "refused", "requests", "running",
    )  # fmt: skip

    def __init__(self, name: str, limits: Iterable[KeyLimit] = (), concurrency: int | None = None) -> None:
        self.name = name
        self.meters = [_meter(limit) for limit in limits]
        self.concurrency = concurrency
        self.limited = bool(self.meters) or concurrency is not None
        self.running = self.requests = self.prompt_tokens = self.cached_tokens = self.output_tokens = self.cost = 0
        self.refused: dict[str, int] = {}
        self._high: dict[str, float] = {}
        self._mean_s = GUESS_S

    def reserve(self, model: str, tariff: Tariff, prompt: int, most_output: int | None, now: float) -> Reserved | Shortage:
        """Hold what a call may use. `most_output` None: its caller names no most, and what such calls use at most is expected of it."""
        if self.concurrency is not None and self.running >= self.concurrency:
            return self._short(Shortage(CONCURRENCY, self.running, self.concurrency, 1, 0.0, self._mean_s / self.running))
        output = self._expected(model, tariff, prompt) if most_output is None else most_output
        amounts = 1, prompt + output, tariff.cost(prompt, 0, output)
        slots: list[Slot] = []
        for meter in self.meters:
            slot = meter.window.take(amounts[meter.at], now)
            if slot is None:
                self._give_back(slots, amounts)
                return self._short(self._worst(amounts, now))
            slots.append(slot)
        self.running += 1
        return Reserved(tariff, prompt, output, amounts, now, slots)

    def settle(self, model: str, held: Reserved, prompt: int, cached: int, output: int, now: float) -> None:
        """The call ended, and used this; a negative count is unknown, and what was reserved stands for it."""
        self.running -= 1
        self._mean_s += LEARN * (now - held.at - self._mean_s)
        if output >= 0:
            self._learn(model, output)
        else:
            output = held.output
        used = self.book(held.tariff, prompt if prompt >= 0 else held.prompt, cached, output)
        for meter, slot in zip(self.meters, held.slots, strict=True):
            spare = held.amounts[meter.at] - used[meter.at]
            if spare > 0:
                meter.window.give_back(slot, spare)
            elif spare < 0:
                # More than was reserved: the excess counts from now on, and keeps later calls out until it has left.
                meter.window.add(-spare, now)

    def release(self, held: Reserved, *, request: bool = True) -> None:
        """The call ended, and used nothing. Without `request` it still counts as a request."""
        self.running -= 1
        if request:
            self._give_back(held.slots, held.amounts)
        else:
            self._give_back(held.slots, (0, *held.amounts[1:]))
            self.requests += 1

    def book(self, tariff: Tariff, prompt: int, cached: int, output: int) -> Amounts:
        """Add a call to what is spent; what it came to."""
        if cached < 0:
            cached = 0
        elif cached > prompt:
            cached = prompt
        cost = 0 if tariff is FREE else tariff.cost(prompt, cached, output)
        self.requests += 1
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.output_tokens += output
        self.cost += cost
        return 1, prompt + output, cost

    def use(self, now: float) -> KeyUse:
        """What the admin side shows."""
        windows = tuple(
            WindowUse(
                limit=meter.kind,
                window_s=meter.window.length_s,
                most=meter.shown(meter.window.limit),
                used=meter.shown(meter.window.used(now)),
                reset_s=round(meter.window.reset_s(now), 3),
            )
            for meter in self.meters
        )
        return KeyUse(
            name=self.name, requests=self.requests, prompt_tokens=self.prompt_tokens, cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens, cost=self.cost / PICO, running=self.running, concurrency=self.concurrency,
            refused=dict(self.refused), windows=windows,
        )  # fmt: skip

    def _short(self, shortage: Shortage) -> Shortage:
        self.refused[shortage.kind] = self.refused.get(shortage.kind, 0) + 1
        return shortage

    def _worst(self, amounts: Amounts, now: float) -> Shortage:
        """Of the limits that are reached, the one that lasts longest."""
        meter = max(self.meters, key=lambda meter: meter.window.wait_s(amounts[meter.at], now))
        window, amount, shown = meter.window, amounts[meter.at], meter.shown
        wait_s = window.wait_s(amount, now)
        return Shortage(meter.kind, shown(window.used(now)), shown(window.limit), shown(amount), window.length_s, wait_s)

    def _give_back(self, slots: Sequence[Slot], amounts: Amounts) -> None:
        """To the first meters, as many as there are slots."""
        for meter, slot in zip(self.meters, slots, strict=False):
            meter.window.give_back(slot, amounts[meter.at])

    def _expected(self, model: str, tariff: Tariff, prompt: int) -> int:
        """What the longest answers of late had, but no more than may be used at all: a guess alone keeps nobody out for good."""
        output = self._high.get(model, GUESS_TOKENS)
        for meter in self.meters:
            if meter.kind == TOKENS:
                output = min(output, meter.window.limit - prompt)
            elif meter.kind == COST and tariff.output:
                output = min(output, (meter.window.limit - prompt * tariff.prompt) // tariff.output)
        return max(0, int(output))

    def _learn(self, model: str, output: int) -> None:
        """The longest answer seen of late: one raises it at once, shorter ones wear it down."""
        high = self._high.get(model, float(output))
        if model in self._high or len(self._high) < MODELS:
            self._high[model] = max(output, high + LEARN * (output - high))


def accounts(keys: Iterable[Key], others: Iterable[str] = ()) -> dict[str, Account]:
    """One account for each key's name; `others` are names that have no limits of their own."""
    made = {key.name: Account(key.name, key.limits, key.concurrency) for key in keys}
    for name in others:
        made.setdefault(name, Account(name))
    return made


def _meter(limit: KeyLimit) -> Meter:
    if limit.requests is not None:
        return Meter(REQUESTS, 0, Window(limit.requests, limit.window_s))
    if limit.tokens is not None:
        return Meter(TOKENS, 1, Window(limit.tokens, limit.window_s))
    cost = inf if limit.cost is None else limit.cost
    return Meter(COST, 2, Window(max(1, round(cost * PICO)), limit.window_s))
