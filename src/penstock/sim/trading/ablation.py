"""Penstock with one part taken away at a time: what each of them brings."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.config import Class, Config
from penstock.sim.presets import BASELINES
from penstock.sim.trading.runs import Way, after, before

UNBOUNDED = 1e9


def ablations(config: Config, scale: float) -> list[Way]:
    """Whole, each part off, and what was before. Answers are judged by the same classes throughout."""
    whole = after(config, scale)

    def off(name: str, about: str, changed: Config | None = None, *, blind: bool = False) -> Way:
        return replace(
            whole,
            name=name,
            about=about,
            preset=replace(whole.preset, blind=blind),
            setting=replace(whole.setting, config=changed or config),
        )

    policy, knobs = config.policy, config.knobs
    hashing = replace(policy, score={f"{BASELINES}:ConsistentHash": 1.0}, pick=f"{BASELINES}:MaxScore")
    patient = replace(policy, admit="bounded")
    return [
        whole,
        off("no classes", "one class for all, with the deadline of the loosest", replace(config, classes=(loosest(config.classes),))),
        off("no admission", "nothing is refused but by a full queue", replace(config, policy=patient)),
        off("no memory", "no reservation of KV memory", replace(config, knobs=replace(knobs, kv_share=UNBOUNDED))),
        off("no prefix", "what prompts have in common is not looked at", blind=True),
        off(
            "hashing for prefix",
            "nodes by consistent hashing with bounded loads instead of predicted time and prefix",
            replace(config, policy=hashing, knobs=replace(knobs, sample=1024)),
        ),
        before(config, scale),
    ]


def loosest(classes: tuple[Class, ...]) -> Class:
    """One class in which every request is."""

    def most(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return max(known) if len(known) == len(values) else None

    return Class(name="all", ttft_ms=most([one.ttft_ms for one in classes]), total_ms=most([one.total_ms for one in classes]))
