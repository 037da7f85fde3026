"""The built-in generator: clients with bursty arrivals, lengths, shared prefixes and conversations.

Everything is drawn from one seeded stream a client, so that a client's requests stay the same whatever the others do.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from math import log
from random import Random
from typing import Literal

import msgspec
import xxhash

from penstock.errors import TraceError
from penstock.facts import BLOCK_TOKENS
from penstock.sim.arrival import Arrival
from penstock.sim.gaps import gaps, shape_of

TOKENS_PER_S = 50.0
"""How fast an answer is written, for the moment a conversation's next turn can come at the earliest."""


class Size(msgspec.Struct, frozen=True):
    """Log-normal token counts: half of them above `median`, 16% above `median x spread`."""

    median: float
    spread: float = 2.0
    most: int = 32_768

    def draw(self, rng: Random) -> int:
        return max(1, min(self.most, round(rng.lognormvariate(log(self.median), log(self.spread)))))


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """One source of requests, or of conversations where `turns` is above 1."""

    rate: float
    """Requests (or conversations) begun a second."""
    cv: float = 1.0
    """Coefficient of variation of the gaps: 1 is Poisson, above it bursts."""
    kind: Literal["Gamma", "Weibull"] = "Gamma"
    prompt: Size
    output: Size
    prefixes: int = 0
    """Shared prefixes it draws from, the first ones more often (Zipf)."""
    prefix_tokens: int = 0
    turns: float = 1.0
    """Mean turns of a conversation; each turn's prompt holds all before it."""
    think_s: float = 10.0
    """Mean pause before the next turn."""
    start_s: float = 0.0
    end_s: float | None = None


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    about: str
    duration_s: float
    clients: dict[str, Client]


CHAT = Client(rate=1.0, prompt=Size(800), output=Size(250))

# Rates are meant for four nodes of `deepseek-v3-h200-tp8`, which together take about 25 requests a second of CHAT's sizes.
SCENARIOS: dict[str, Scenario] = {
    "steady": Scenario(
        about="Poisson arrivals of mixed chats at about half of what four DeepSeek nodes take",
        duration_s=300.0,
        clients={"web": msgspec.structs.replace(CHAT, rate=12.0), "batch": Client(rate=0.5, prompt=Size(6_000), output=Size(400))},
    ),
    "burst": Scenario(
        about="the same load in bursts (CV 4), with a peak of three times the rate in the middle",
        duration_s=300.0,
        clients={
            "web": msgspec.structs.replace(CHAT, rate=10.0, cv=4.0),
            "bot": msgspec.structs.replace(CHAT, rate=2.0, cv=3.0, kind="Weibull"),
            "peak": msgspec.structs.replace(CHAT, rate=36.0, start_s=120.0, end_s=180.0),
        },
    ),
    "tenants": Scenario(
        about="ten tenants, one of them twice as busy as the others, at about half of what four DeepSeek nodes take",
        duration_s=300.0,
        clients={f"t{number}": msgspec.structs.replace(CHAT, rate=2.0 if number == 9 else 1.0) for number in range(10)},
    ),
    "overload": Scenario(
        about="three times what four DeepSeek nodes take, for five minutes",
        duration_s=300.0,
        clients={"web": msgspec.structs.replace(CHAT, rate=76.0), "batch": Client(rate=3.0, prompt=Size(6_000), output=Size(400))},
    ),
    "shared-prefix": Scenario(
        about="150 prompts' first 6,000 tokens shared, 1,200 of their own, as in llm-d's benchmark; a rising rate",
        duration_s=300.0,
        clients={
            f"step-{step}": Client(
                rate=2.0 + 2.0 * step,
                prompt=Size(1_200, 1.05),
                output=Size(1_000, 1.05),
                prefixes=150,
                prefix_tokens=6_000,
                start_s=60.0 * step,
                end_s=60.0 * (step + 1),
            )
            for step in range(5)
        },
    ),
    "chat": Scenario(
        about="conversations of four turns on average, each turn's prompt holding all before it",
        duration_s=300.0,
        clients={"chat": msgspec.structs.replace(CHAT, rate=3.0, turns=4.0, prefixes=4, prefix_tokens=1_024)},
    ),
}


def scenario(name: str, others: Iterable[str] = ()) -> Scenario:
    """Raises TraceError naming the known ones, those that are made elsewhere among them."""
    if name not in SCENARIOS:
        raise TraceError(f"unknown scenario {name!r}; known: {', '.join([*SCENARIOS, *others])}")
    return SCENARIOS[name]


def generate(work: Scenario, seed: int) -> list[Arrival]:
    """All requests of a scenario, in order of time."""
    arrivals: list[Arrival] = []
    for name, client in work.clients.items():
        arrivals += client_arrivals(name, client, min(client.end_s or work.duration_s, work.duration_s), seed)
    arrivals = [arrival for arrival in arrivals if arrival.at_s < work.duration_s]
    arrivals.sort(key=lambda arrival: arrival.at_s)
    return arrivals


def client_arrivals(name: str, client: Client, end_s: float, seed: int) -> list[Arrival]:
    rng = Random(f"client {seed} {name}")
    weights = list(accumulate(1.0 / rank for rank in range(1, client.prefixes + 1)))
    arrivals: list[Arrival] = []
    for number, at_s in enumerate(starts(client, end_s, rng)):
        # Clients of one scenario share prefixes of the same rank: they are the same documents.
        rank = rng.choices(range(client.prefixes), cum_weights=weights)[0] if weights else -1
        arrivals += conversation(name, client, at_s, number, rank, rng)
    return arrivals


def starts(client: Client, end_s: float, rng: Random) -> list[float]:
    """Arrival times of a renewal process that has run for a while: no gap is special at the window's start."""
    shape = shape_of(client.kind, client.cv)
    expected = client.rate * (end_s - client.start_s)
    spare = 20.0 * client.cv**2 + 20.0
    times: list[float] = []
    at = -spare * rng.random()
    while at < expected:
        at += gaps(client.kind, shape, 1, rng)[0]
        if 0.0 <= at < expected:
            times.append(client.start_s + at / client.rate)
    return times


def conversation(name: str, client: Client, at_s: float, number: int, rank: int, rng: Random) -> list[Arrival]:
    """The turns of one conversation; a single request where `turns` is 1."""
    prefix = client.prefix_tokens if rank >= 0 else 0
    own = f"{name} {number}"
    history = prefix
    turns: list[Arrival] = []
    while True:
        prompt, output = history + client.prompt.draw(rng), client.output.draw(rng)
        turns.append(Arrival(at_s, prompt, output, blocks(f"prefix {rank}", prefix, own, prompt), name, own if client.turns > 1 else ""))
        if client.turns <= 1.0 or rng.random() < 1.0 / client.turns:
            return turns
        history = prompt + output
        at_s += output / TOKENS_PER_S + rng.expovariate(1.0 / client.think_s)


def blocks(shared: str, shared_tokens: int, own: str, tokens: int) -> tuple[int, ...]:
    """Chained hashes of a prompt's full blocks: those wholly inside the shared part by its name, then by the caller's own."""
    hashes, before = [], 0
    for index in range(tokens // BLOCK_TOKENS):
        text = shared if (index + 1) * BLOCK_TOKENS <= shared_tokens else own
        before = xxhash.xxh3_64_intdigest(text.encode(), before)
        hashes.append(before)
    return tuple(hashes)
