"""Everything at once, at random: engines fail, callers leave, calls are hedged, called back, diverted, repeated and cached.

Afterwards every call has ended once, every book is empty, nothing was raised in a callback, the journal replays to the same actions,
and no key and no prompt is where it should not be.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.world import (
    BODY,
    MODEL,
    SSE_HEAD,
    Asked,
    Caller,
    World,
    answer,
    ask,
    die,
    event,
    get,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Cache, Class, Config, Hold, Idempotency, Key, KeyLimit, Price, Rung, Tickets, When
from penstock.gateway import idempotency, tickets
from penstock.gateway.replay import replay
from penstock.knobs import Knobs

SMALL = "deepseek-small"
KEYS = {name: f"sk-{name}-canary-of-keys" for name in ("desk", "lab", "plain")}
PROMPT = "canary of prompts"
LADDER = (Rung.CACHE, Rung.WAIT, Rung.SMALLER, Rung.TICKET)
CLASSES = (
    Class(name="urgent", priority=5, ttft_ms=250, when=When(header={"x-task": "urgent"}), ladder=LADDER),
    Class(name="whole", priority=4, total_ms=600, when=When(header={"x-task": "whole"}), ladder=(Rung.WAIT, Rung.SMALLER)),
    Class(name="impatient", priority=3, ttft_ms=200, when=When(header={"x-task": "impatient"}), ladder=(Rung.SMALLER, Rung.TICKET)),
    Class(name="low", priority=1),
)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def config(folder: Path) -> Config:
    limits = (KeyLimit(requests=100_000), KeyLimit(tokens=50_000_000), KeyLimit(cost=1e9))
    keys = (
        Key(name="desk", sha256=digest(KEYS["desk"]), limits=limits, concurrency=40),
        Key(name="lab", sha256=digest(KEYS["lab"]), limits=limits, max_priority=2),
        Key(name="plain", sha256=digest(KEYS["plain"])),
    )
    return Config(
        keys=keys,
        classes=CLASSES,
        smaller={MODEL: SMALL},
        prices={"*": Price(input_per_1m=1.0, output_per_1m=2.0)},
        hold=Hold(quiet_s=0.05, interval_s=0.05),
        probe_s=0.05,
        cache=Cache(bytes=200_000),
        idempotency=Idempotency(bytes=100_000),
        tickets=Tickets(path=str(folder / "tickets.sqlite"), running=8),
        knobs=Knobs(queue_max=60, hedge_share=1.0, breaker_open_s=0.1, breaker_failures=8),
    )


class Storm:
    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.over = asyncio.Event()
        self.tickets: list[tuple[str, str]] = []

    async def engine(self, asked: Asked) -> None:
        with suppress(RuntimeError):  # What uvloop says of a connection that the gateway has closed meanwhile.
            await self.behave(asked)

    async def behave(self, asked: Asked) -> None:
        dice = self.dice
        if self.over.is_set():
            await answer(asked)
            return
        await asyncio.sleep(dice.choice((0, 0, 0.002, 0.01, 0.05, 0.3)))
        stream = bool(asked.json.get("stream"))
        fate = dice.random()
        if fate < 0.55:
            await answer(asked)
        elif fate < 0.62:
            await die(asked)
        elif fate < 0.70:
            await refuse(dice.choice((400, 404, 429, 500, 503)))(asked)
        elif fate < 0.74:
            await self.over.wait()
            await die(asked)
        elif not stream:
            await answer(asked)
        elif fate < 0.82:
            await stream_then(event(), event("One"))(asked)
        elif fate < 0.88:
            await stream_then(event())(asked)
        elif fate < 0.92:
            asked.writer.write(SSE_HEAD + b"0\r\n\r\n")
        else:
            await stream_then(event(), event("One"), event(" two"), then=self.end)(asked)

    async def end(self, asked: Asked) -> None:
        asked.writer.write(b"0\r\n\r\n")

    async def caller(self, port: int) -> None:
        dice = self.dice
        name = dice.choice(list(KEYS))
        headers = {"authorization": f"Bearer {KEYS[name]}", "x-task": dice.choice(("urgent", "whole", "impatient", "low"))}
        size = dice.choice((1, 1, 1, 2_000, 20_000))
        body: dict[str, Any] = BODY | {
            "messages": [{"role": "user", "content": f"{PROMPT} {dice.randrange(12)} " + "x" * size}],
            "stream": dice.random() < 0.6,
            "temperature": dice.choice((0, 0, 1)),
        }
        if dice.random() < 0.3:
            headers["idempotency-key"] = f"canary-{dice.randrange(6)}"
        if dice.random() < 0.1:
            headers["prefer"] = "respond-async"
        async with Caller(port) as caller:
            for _ in range(dice.choice((1, 1, 1, 3))):
                caller.send(body, headers=headers)
            if dice.random() < 0.4:
                await asyncio.sleep(dice.choice((0, 0.001, 0.005, 0.02, 0.1)))
                return
            try:
                async with asyncio.timeout(1.0):
                    got = await caller.answer()
            except (TimeoutError, asyncio.IncompleteReadError):
                return
            assert got.status in (200, 202, 400, 404, 409, 422, 429, 502, 503), (got.status, got.body)
            if got.status == 202:
                self.tickets.append((got.json["id"], name))
                if dice.random() < 0.3:
                    await get(port, f"/v1/tickets/{got.json['id']}", "DELETE", authorization=headers["authorization"])

    async def rage(self, port: int, callers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self.caller(port))
                await asyncio.sleep(self.dice.choice((0, 0, 0.001, 0.004)))


async def settled(w: World) -> None:
    jobs = w.gateway.jobs
    assert jobs is not None
    await until(lambda: not jobs.tickets.jobs)
    await until(lambda: not w.gateway.driver.calls and not w.gateway.core.flights)


def check_empty(w: World) -> None:
    gateway = w.gateway
    core, driver, repeats, cache = gateway.core, gateway.driver, gateway.app.repeats, gateway.driver.cache
    assert (core.waiting, [lane.queue.size for lane in core.lanes.values()]) == (0, [0] * len(core.lanes))
    for node in core.nodes:
        assert (node.running, node.memory.held, node.memory.reserved) == (0, {}, 0), node.config.name
    assert not gateway.ledger.live
    assert not repeats._running and repeats.bytes == sum(kept.size for kept in repeats.kept.values())
    assert cache is not None and cache.open_bytes == 0
    assert not driver._events and not driver._busy
    for use in gateway.key_use():
        assert use.running == 0, use
    for limited in gateway.app.spending.limited.values():
        account = limited.account
        spent = {"requests": account.requests, "tokens": account.prompt_tokens + account.output_tokens, "cost": account.cost}
        for meter in account.meters:
            assert meter.window._used == spent[meter.kind], (account.name, meter.kind)
    assert all(engine.open == 0 for engine in w.engines)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_a_storm_nothing_is_left(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(tickets, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(idempotency, "PATIENCE_S", 0.2)
    caplog.set_level(logging.DEBUG)
    storm = Storm(seed)
    failures: list[dict[str, Any]] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.set_exception_handler(lambda _, context: failures.append(context))
        each = ({"models": (MODEL,)}, {"models": (MODEL,)}, {"models": (SMALL,)})
        more = {"max_running": 6, "kv_tokens": 60_000}
        engines = (storm.engine,) * 3
        async with world(*engines, config=config(tmp_path), journal=tmp_path / "journal", each=[one | more for one in each]) as w:
            await storm.rage(w.port, 250)
            storm.over.set()
            await settled(w)
            await until(lambda: not any(engine.open for engine in w.engines))
            await until(lambda: not w.gateway.app.repeats._running)
            check_empty(w)
            for id, name in storm.tickets:
                got = await get(w.port, f"/v1/tickets/{id}", authorization=f"Bearer {KEYS[name]}")
                assert got.json["status"] in ("completed", "failed", "cancelled"), got.body
                other = next(key for owner, key in KEYS.items() if owner != name)
                assert (await get(w.port, f"/v1/tickets/{id}", authorization=f"Bearer {other}")).status == 404
            again = await ask(w.port, BODY, headers={"authorization": f"Bearer {KEYS['desk']}"})
            assert again.status == 200
            shown = repr((w.gateway.snapshot(), w.gateway.host(), w.gateway.key_use()))
            assert "canary" not in shown

    run(test)
    assert failures == []
    assert "canary" not in caplog.text
    result = replay(tmp_path / "journal")
    assert result.difference is None and result.events > 500
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for key in KEYS.values():
                assert key.encode() not in data and digest(key).encode() not in data, path
            if "tickets" not in path.name:
                assert b"canary" not in data, path
