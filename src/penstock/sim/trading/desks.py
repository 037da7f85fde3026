"""Who calls at the opening bell, and with what: desks with bursts of their own, and tasks of three services.

Everything is drawn from one seeded stream a desk.
"""

from __future__ import annotations

from itertools import accumulate
from math import log
from random import Random

import msgspec
import xxhash

from penstock.facts import BLOCK_TOKENS
from penstock.sim.arrival import Arrival
from penstock.sim.gaps import gaps
from penstock.sim.trading.curve import Clock, Rate


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of work. Its prompts begin with one of `subjects` shared texts (instructions and an instrument's or a book's sheet)."""

    subjects: int
    shared_tokens: int
    """Whole blocks."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of call. Own tokens are log-normal."""

    service: str
    own: float
    """Median tokens of the prompt that are its own."""
    spread: float
    """16% have more than `own x spread`."""
    most: int
    outputs: tuple[int, int]
    """Fewest and most output tokens; all between are equally likely."""
    amount: float | None = None
    """Median of the amount at stake; log-normal."""


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant."""

    share: float
    """Of all requests."""
    cv: float
    """Coefficient of variation of the gaps between its requests, at a constant rate."""
    mix: dict[str, float]
    """Task -> its weight."""


SERVICES = {
    "prediction": Service(subjects=470, shared_tokens=1_024),
    "risk": Service(subjects=62, shared_tokens=2_048),
    "log": Service(subjects=20, shared_tokens=512),
}
TASKS = {
    "trade": Task(service="prediction", own=64, spread=1.3, most=256, outputs=(1, 2), amount=60_000.0),
    "prediction": Task(service="prediction", own=96, spread=1.5, most=448, outputs=(2, 6)),
    "risk": Task(service="risk", own=160, spread=2.2, most=4_096, outputs=(2, 8)),
    "report": Task(service="log", own=192, spread=1.5, most=1_024, outputs=(4, 8)),
}
AMOUNT_SPREAD = 5.5
"""4% to 5% of trades are above 1,000,000."""
DESKS = {
    "equities": Desk(share=0.38, cv=3.0, mix={"trade": 0.62, "prediction": 0.28, "risk": 0.06, "report": 0.04}),
    "derivatives": Desk(share=0.26, cv=3.0, mix={"trade": 0.5, "prediction": 0.3, "risk": 0.15, "report": 0.05}),
    "fx": Desk(share=0.2, cv=2.0, mix={"trade": 0.6, "prediction": 0.3, "risk": 0.05, "report": 0.05}),
    "risk-office": Desk(share=0.08, cv=4.0, mix={"prediction": 0.2, "risk": 0.7, "report": 0.1}),
    "back-office": Desk(share=0.08, cv=4.0, mix={"prediction": 0.2, "report": 0.8}),
}


class Subjects:
    """The shared beginnings of a service's prompts, the first ones more often (Zipf)."""

    def __init__(self, name: str, service: Service) -> None:
        self.tokens, count = service.shared_tokens, service.subjects
        self.blocks = [chain(f"{name} {rank}", 0, service.shared_tokens // BLOCK_TOKENS) for rank in range(count)]
        self.weights = list(accumulate(1.0 / rank for rank in range(1, count + 1)))

    def draw(self, rng: Random) -> tuple[int, ...]:
        return rng.choices(self.blocks, cum_weights=self.weights)[0]


def chain(text: str, before: int, count: int) -> tuple[int, ...]:
    """Chained hashes of `count` blocks."""
    hashes = []
    for _ in range(count):
        before = xxhash.xxh3_64_intdigest(text.encode(), before)
        hashes.append(before)
    return tuple(hashes)


def arrivals(rate: Rate, duration_s: float, seed: int, scale: float = 1.0) -> list[Arrival]:
    """All desks' requests, in order of time; `scale` shrinks their rates."""
    subjects = {name: Subjects(name, service) for name, service in SERVICES.items()}
    made: list[Arrival] = []
    for name, desk in DESKS.items():
        clock = Clock(lambda at, part=desk.share * scale: part * rate(at), duration_s)  # type: ignore[misc]
        made += desk_arrivals(name, desk, clock, subjects, Random(f"desk {seed} {name}"))
    made.sort(key=lambda arrival: arrival.at_s)
    return made


def desk_arrivals(name: str, desk: Desk, clock: Clock, subjects: dict[str, Subjects], rng: Random) -> list[Arrival]:
    tasks, weights = list(desk.mix), list(accumulate(desk.mix.values()))
    shape = 1.0 / desk.cv**2
    made: list[Arrival] = []
    # The process has run for a while: no gap is special at the beginning.
    count = -(20.0 * desk.cv**2 + 20.0) * rng.random()
    while True:
        count += gaps("Gamma", shape, 1, rng)[0]
        if count >= clock.total:
            return made
        if count >= 0.0:
            task = rng.choices(tasks, cum_weights=weights)[0]
            made.append(call(name, clock.at(count), task, subjects, rng))


def call(desk: str, at_s: float, name: str, subjects: dict[str, Subjects], rng: Random) -> Arrival:
    task = TASKS[name]
    text = subjects[task.service]
    shared, own = text.draw(rng), min(task.most, max(1, round(rng.lognormvariate(log(task.own), log(task.spread)))))
    if own >= BLOCK_TOKENS:
        shared = shared + chain(str(rng.getrandbits(64)), shared[-1], own // BLOCK_TOKENS)
    metadata = {"task": name}
    if task.amount is not None:
        metadata["amount"] = f"{rng.lognormvariate(log(task.amount), log(AMOUNT_SPREAD)):.2f}"
    return Arrival(
        at_s=at_s,
        prompt_tokens=text.tokens + own,
        output_tokens=rng.randint(*task.outputs),
        blocks=shared,
        tenant=desk,
        model=task.service,
        max_tokens=task.outputs[1],
        metadata=metadata,
    )
