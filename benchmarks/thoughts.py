"""CPU of a streamed chunk in the relay, by what its engine makes of the model's thoughts: nothing beside it is measured.

A stream is 400 chunks of thoughts, where there are any, and 400 of the answer, each chunk one event. `no thoughts` is what every stream
costs; the others are to be seen beside it. A first answer is one whose form nothing is known of yet.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from time import process_time

from benchmarks.row import Row, main
from penstock.wire.reasoning import WATCHED, Habit, Thoughts
from penstock.wire.sse import Relay

CHUNKS, ROUNDS, STREAMS = 400, 7, 12


def event(**delta: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "demo", "choices": [choice]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def stream(*thoughts: bytes) -> list[bytes]:
    return [event(role="assistant", content=""), *thoughts, *[event(content=" token")] * CHUNKS, b"data: [DONE]\n\n"]


def known(model: str, inside: bool | None = None, watched: int = WATCHED) -> Callable[[], Habit]:
    def habit() -> Habit:
        made = Habit(model)
        made.inside, made.watched = inside, watched
        return made

    return habit


def cost(events: list[bytes], habit: Callable[[], Habit] | None, collect: bool = False) -> float:
    """CPU microseconds a chunk, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        relays = [Relay(True, thoughts=None if habit is None else Thoughts(habit(), collect=collect)) for _ in range(STREAMS)]
        gc.collect()
        began = process_time()
        for relay in relays:
            for data in events:
                relay.feed(data)
        best = min(best, process_time() - began)
    return best / STREAMS / len(events) * 1e6


def measure() -> list[Row]:
    tags = [event(content="<think>"), *[event(content=" token")] * CHUNKS, event(content="</think>")]
    untagged = tags[1:]
    own, other = [event(reasoning_content=" token")] * CHUNKS, [event(reasoning=" token")] * CHUNKS
    figures = {
        "no thoughts, not normalised": cost(stream(), None),
        "no thoughts": cost(stream(), known("demo")),
        "no thoughts, a first answer": cost(stream(), known("demo", watched=0)),
        "reasoning_content": cost(stream(*own), known("demo")),
        "reasoning_content before a tool call": cost(stream(*own), known("demo"), collect=True),
        "reasoning": cost(stream(*other), known("demo")),
        "<think>": cost(stream(*tags), known("demo")),
        "</think> alone": cost(stream(*untagged), known("demo", inside=True)),
        "</think> alone, a first answer": cost(stream(*untagged), known("deepseek-r1")),
    }
    plain = figures["no thoughts, not normalised"]
    return [Row(f"relay of a chunk: {name}", value, "us CPU", note=f"{value / plain:.2f}x") for name, value in figures.items()]


if __name__ == "__main__":
    main(measure)
