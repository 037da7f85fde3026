"""Scripted faults: what goes wrong, where and when, from a small YAML or JSON list.

`- {at_s: 60, node: n1, do: kill}`: connections are reset, memory and cache lost, probes unanswered.
`- {at_s: 90, node: n1, do: restart}`: empty and healthy again.
`- {at_s: 30, node: n2, do: slow, factor: 3, for_s: 20}`: every step takes three times as long.
`- {at_s: 10, node: n0, do: mute, for_s: 15}`: healthy, but its metrics say nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from msgspec import Meta

from penstock.errors import TraceError
from penstock.sim.traces.source import opened

Do = Literal["kill", "restart", "slow", "mute", "unmute"]
ENDS: dict[Do, Do] = {"kill": "restart", "slow": "slow", "mute": "unmute"}
"""What ends a passing fault; `slow` by a factor of 1."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault. Seconds on the simulation's clock."""

    at_s: Annotated[float, Meta(ge=0)]
    node: str
    """Its name: `n0` is the first."""
    do: Do
    factor: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    """For `slow`: how many times as long a step takes."""
    for_s: Annotated[float, Meta(gt=0)] | None = None
    """For `kill`, `slow` and `mute`: when it is over again; without it, never."""


def read(path: Path, nodes: list[str]) -> list[Fault]:
    """Faults in order of time. Raises TraceError: file, line or entry, and what is expected."""
    with opened(path) as source:
        text = source.stream.read()
    try:
        faults = msgspec.convert(yaml.safe_load(text), type=list[Fault])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise TraceError("not YAML or JSON", file=str(path), line=mark.line + 1 if mark else 0) from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise TraceError(f"{error}; a fault is {{at_s, node, do: kill|restart|slow|mute|unmute}}", file=str(path)) from error
    for index, fault in enumerate(faults):
        if fault.node not in nodes:
            raise TraceError(f"[{index}].node: no node {fault.node!r}; known: {', '.join(nodes)}", file=str(path))
    return schedule(faults)


def schedule(faults: list[Fault]) -> list[Fault]:
    """In order of time, with the end of each passing fault as a fault of its own."""
    ends = [end for fault in faults if (end := _end(fault)) is not None]
    return sorted([*faults, *ends], key=lambda fault: fault.at_s)


def _end(fault: Fault) -> Fault | None:
    if fault.for_s is None or fault.do not in ENDS:
        return None
    return Fault(fault.at_s + fault.for_s, fault.node, ENDS[fault.do])
