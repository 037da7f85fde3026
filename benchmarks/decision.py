"""What one decision of the core costs at 8, 200 and 800 nodes, with the default policies.

The fleets are equally busy: requests arrive and end at a rate that keeps four running a node. A decision is the core's whole
work for a request: its arrival, its first token and its end.
"""

from __future__ import annotations

import gc
import random
from collections import deque
from time import perf_counter

from benchmarks.row import Row, main
from penstock.config import Class, Config, Node
from penstock.core import Core
from penstock.events import Arrived, Event, Finished, FirstToken, Forward
from penstock.facts import Request
from penstock.knobs import Knobs

FLEETS = (8, 200, 800)
REQUESTS = 6_000
ROUNDS = 5
RUNNING = 4
BLOCKS = 6
PREFIXES = 500


def fleet(nodes: int) -> Config:
    return Config(
        nodes=tuple(
            Node(name=f"n{index}", url=f"http://10.0.0.1:{9000 + index}", models=("m",), kv_tokens=500_000) for index in range(nodes)
        ),
        classes=(Class(name="usual", ttft_ms=20_000.0),),
    )


def requests(draw: random.Random) -> list[Request]:
    """Prompts of 3,072 tokens; two thirds of each is one of 500 shared prefixes."""
    shared = [tuple(draw.getrandbits(63) for _ in range(BLOCKS - 2)) for _ in range(PREFIXES)]
    made = []
    for number in range(1, REQUESTS + 1):
        own = (draw.getrandbits(63), draw.getrandbits(63))
        made.append(Request(id=number, model="m", prompt_tokens=3_072, max_tokens=200, stream=True, blocks=draw.choice(shared) + own))
    return made


def decision_us(nodes: int) -> float:
    """CPU microseconds a request, mean over a run."""
    core = Core(fleet(nodes), Knobs(depth_s=1e6), random.Random(1), {})
    running: deque[int] = deque()
    now, step = 0.0, 0.2 / nodes
    spent = 0.0
    gc.collect()
    gc.disable()
    try:
        for request in requests(random.Random(2)):
            now += step
            events: list[Event] = [Arrived(request)]
            if len(running) >= RUNNING * nodes:
                events.append(Finished(running.popleft(), prompt_tokens=3_072, output_tokens=100))
            before = perf_counter()
            for event in events:
                actions = core.handle(event, now)
                for action in actions:
                    if isinstance(action, Forward):
                        running.append(action.id)
                        core.handle(FirstToken(action.id), now)
            spent += perf_counter() - before
    finally:
        gc.enable()
    return spent / REQUESTS * 1e6


def measure() -> list[Row]:
    best = {nodes: min(decision_us(nodes) for _ in range(ROUNDS)) for nodes in FLEETS}
    return [
        *(Row(f"decision at {nodes} nodes", cost, "us") for nodes, cost in best.items()),
        Row("decision: 200 nodes / 8 nodes", best[200] / best[8], "x", at_most=2.0),
        Row("decision: 800 nodes / 8 nodes", best[800] / best[8], "x"),
    ]


if __name__ == "__main__":
    main(measure)
