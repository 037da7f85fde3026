"""One request of a workload: what its caller sends, and what only the engine knows."""

from __future__ import annotations

import msgspec


class Arrival(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A request at `at_s` seconds from the workload's start. Its output length is the engine's secret: the core never sees it."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Hashes of the prompt's full blocks of `facts.BLOCK_TOKENS`; equal hashes mean equal prefixes."""
    tenant: str = ""
    session: str = ""
    model: str = "model"
    max_tokens: int = 0
    stream: bool = True
    metadata: dict[str, str] = {}


def cut(arrivals: list[Arrival], *, start_s: float, end_s: float, speedup: float, limit: int | None) -> list[Arrival]:
    """Arrivals inside [start, end), in order, their clock restarted at `start_s` and run `speedup` times as fast."""
    inside = [arrival for arrival in arrivals if start_s <= arrival.at_s < end_s]
    inside.sort(key=lambda arrival: arrival.at_s)
    del inside[limit if limit is not None else len(inside) :]
    if start_s == 0.0 and speedup == 1.0:
        return inside
    return [msgspec.structs.replace(arrival, at_s=(arrival.at_s - start_s) / speedup) for arrival in inside]
