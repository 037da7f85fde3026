"""A gateway that is killed again and again while tickets and a batch are in flight, and what must hold afterwards.

Callers ask for tickets, poll and cancel them; the engine gives every run a number of its own, so a second result could not hide
behind an equal first one. A trigger in the store notes every end that is written, whoever writes it.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from tests.gateway.world import MODEL, Answer, Asked, Engine, ask, get, put_json

CALLERS = 6
FLIGHT_MOST = 150
"""Tickets in flight at which callers pause: most kills should find some at every stage."""
BATCH_LINES = 60
BATCHES_EVERY = 4
"""Kills between two new batches."""
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
GONE = (OSError, asyncio.IncompleteReadError, EOFError)
"""What a caller sees of a gateway that is not there, or no longer."""
AUDIT = """
CREATE TABLE audit (id TEXT NOT NULL, status TEXT NOT NULL);
CREATE TRIGGER audited AFTER UPDATE OF status ON jobs WHEN NEW.status <> 'queued'
BEGIN INSERT INTO audit VALUES (NEW.id, NEW.status); END;
"""


class Storm:
    """Run `rage`, then read `found`: what does not hold, in words."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.folder, self.kills = folder, kills
        self.random = random.Random(seed)
        self.store = folder / "tickets.sqlite"
        self.engine = Engine("n0", self._behave)
        self.port = 0
        self.acknowledged: dict[str, str] = {}
        """Ticket -> the text it was asked with, of those whose 202 was seen."""
        self.ends: dict[str, dict[str, Any]] = {}
        """Ticket -> how it was first seen to have ended."""
        self.runs: Counter[str] = Counter()
        """Text -> times the engine was asked it."""
        self.batches: list[str] = []
        self.in_flight: list[int] = []
        """At each kill, acknowledged tickets not seen to have ended."""
        self.found: list[str] = []
        self.refused: Counter[int] = Counter()
        self._process: asyncio.subprocess.Process | None = None
        self._numbers = iter(range(10**9))
        self._calm = False

    # --- the parts

    async def _behave(self, asked: Asked) -> None:
        text = asked.json["messages"][0]["content"]
        self.runs[text] += 1
        number = next(self._numbers)
        await asyncio.sleep(self.random.uniform(0.0, 0.25))
        if self.random.random() < 0.02:
            put_json(asked, {"error": {"message": "no"}}, 400)
        else:
            message = {"role": "assistant", "content": f"{text} #{number}"}
            put_json(asked, {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    async def start(self) -> None:
        """The gateway, and until it answers."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PENSTOCK_KEYS": ""}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "penstock", "gateway", "--config", str(self.folder / "penstock.json")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        assert self._process.stdout is not None
        said = b""
        while b"/admin/state" not in said:
            line = await self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"the gateway did not start: {said.decode()}")
            said += line

    async def kill(self, *, gently: bool = False) -> None:
        assert self._process is not None
        if gently:
            self._process.terminate()
        else:
            self._process.kill()
        await self._process.communicate()

    def _audit(self) -> None:
        with sqlite3.connect(self.store) as connection:
            connection.executescript(AUDIT)
        connection.close()

    # --- callers

    async def _call(self) -> None:
        """Ask for tickets, as fast as they are given, until it is calm."""
        while not self._calm:
            if len(self.acknowledged) - len(self.ends) > FLIGHT_MOST:
                await asyncio.sleep(0.02)
                continue
            text = f"ticket {next(self._numbers)}"
            try:
                got = await self._ask(text)
            except GONE:
                await asyncio.sleep(0.02)
                continue
            if got.status == 202 and got.whole:
                self.acknowledged[got.json["id"]] = text
                await self._maybe_cancel(got.json["id"])
            else:
                self.refused[got.status] += 1
            await asyncio.sleep(self.random.uniform(0.0, 0.05))

    async def _ask(self, text: str) -> Answer:
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
        return await ask(self.port, body, headers={"prefer": "respond-async"})

    async def _maybe_cancel(self, id: str) -> None:
        if self.random.random() < 0.05:
            try:
                self._saw(await get(self.port, f"/v1/tickets/{id}", "DELETE"))
            except GONE:
                pass

    async def _poll(self) -> None:
        """Look at tickets that are not known to have ended, and again at some that are."""
        while not self._calm:
            open_ones = [id for id in self.acknowledged if id not in self.ends]
            chosen = self.random.sample(open_ones, min(10, len(open_ones))) + self.random.sample(sorted(self.ends), min(3, len(self.ends)))
            for id in chosen:
                try:
                    self._saw(await get(self.port, f"/v1/tickets/{id}"))
                except GONE:
                    break
            await asyncio.sleep(0.03)

    def _saw(self, got: Answer) -> None:
        if not got.whole:
            return
        if got.status != 200:
            self.found.append(f"a ticket that was acknowledged is answered with {got.status}: {got.body!r}")
            return
        shown = got.json
        if shown["status"] in ENDED:
            before = self.ends.setdefault(shown["id"], shown)
            if before != shown:
                self.found.append(f"{shown['id']} ended as {before}, and later as {shown}")

    async def _batch(self) -> None:
        """Ask for a batch; a kill may come at any step of it."""
        lines = [
            {"custom_id": f"line {n}", "method": "POST", "url": "/v1/chat/completions", "body": {"model": MODEL, "messages": [message]}}
            for n in range(BATCH_LINES)
            for message in [{"role": "user", "content": f"line {n}"}]
        ]
        form = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        form += b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        form += b"\n".join(map(msgspec.json.encode, lines)) + b"\r\n--x--\r\n"
        try:
            file = await ask(self.port, form, "/v1/files", headers={"content-type": "multipart/form-data; boundary=x"})
            if not file.whole:
                return
            wanted = {"input_file_id": file.json["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            made = await ask(self.port, wanted, "/v1/batches")
            if made.whole:
                self.batches.append(made.json["id"])
        except GONE:
            pass

    # --- the whole

    async def rage(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        await self.engine.start()
        node = {"name": "n0", "url": f"http://127.0.0.1:{self.engine.port}", "models": [MODEL], "max_running": 8}
        tickets = {"path": str(self.store), "running": 12}
        config = {"listen": {"port": self.port}, "admin": {"port": 0}, "nodes": [node], "tickets": tickets, "probe_s": 0.2}
        (self.folder / "penstock.json").write_bytes(msgspec.json.encode(config))
        try:
            await self.start()
            await self.kill(gently=True)
            self._audit()
            await self.start()
            await self._storm()
        finally:
            if self._process is not None and self._process.returncode is None:
                await self.kill()
            await self.engine.stop()

    async def _storm(self) -> None:
        callers = [asyncio.ensure_future(work) for work in (*(self._call() for _ in range(CALLERS)), self._poll())]
        for number in range(self.kills):
            if number % BATCHES_EVERY == 0:
                callers.append(asyncio.ensure_future(self._batch()))
            await asyncio.sleep(self.random.uniform(0.02, 1.0))
            self.in_flight.append(len(self.acknowledged) - len(self.ends))
            await self.kill()
            await self.start()
        self._calm = True
        await asyncio.gather(*callers)
        for id in self.acknowledged:
            await self._settle(id)
        for batch in self.batches:
            await self._check_batch(await self._settled_batch(batch))
        await self.kill(gently=True)
        self._check_store()

    async def _settle(self, id: str) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            got = await get(self.port, f"/v1/tickets/{id}?wait=10")
            self._saw(got)
            if got.status != 200 or got.json["status"] in ENDED:
                return
        self.found.append(f"{id} does not end")

    async def _settled_batch(self, id: str) -> dict[str, Any]:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            shown = (await get(self.port, f"/v1/batches/{id}")).json
            if shown["status"] in ENDED:
                return shown
            await asyncio.sleep(0.1)
        self.found.append(f"{id} does not end: {shown}")
        return shown

    # --- what must hold

    async def _check_batch(self, shown: dict[str, Any]) -> None:
        seen: Counter[str] = Counter()
        for kind in ("output", "error"):
            if (file := shown[f"{kind}_file_id"]) is not None:
                content = (await get(self.port, f"/v1/files/{file}/content")).body
                seen.update(msgspec.json.decode(line)["custom_id"] for line in content.splitlines())
        if seen != Counter(f"line {n}" for n in range(BATCH_LINES)):
            self.found.append(f"the batch's files hold not each line once: {seen}")
        counts = shown["request_counts"]
        if counts["total"] != BATCH_LINES or counts["completed"] + counts["failed"] != BATCH_LINES:
            self.found.append(f"the batch counts {counts}")

    def _check_store(self) -> None:
        with sqlite3.connect(self.store) as connection:
            audit = Counter(id for (id,) in connection.execute("SELECT id FROM audit"))
            left = connection.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()[0]
            rows = dict(connection.execute("SELECT id, status FROM jobs WHERE batch IS NULL"))
        connection.close()
        self.found += [f"{id} was ended {times} times" for id, times in audit.items() if times != 1]
        self.found += [f"{id}, acknowledged, is not in the store" for id in self.acknowledged if id not in rows]
        self.found += [f"{id}, acknowledged, has no end on record" for id in self.acknowledged if id not in audit]
        if left:
            self.found.append(f"{left} jobs have not ended")
        # Those whose 202 was lost on the way are run all the same.
        self.unacknowledged = len(rows.keys() - self.acknowledged.keys())

    def report(self) -> str:
        again = sum(times - 1 for times in self.runs.values())
        how = Counter(shown["status"] for shown in self.ends.values())
        flight = sorted(self.in_flight) or [0]
        return (
            f"{self.kills} kills, {len(self.acknowledged)} tickets acknowledged (and {self.unacknowledged} whose 202 was not seen), "
            f"{flight[0]} to {flight[-1]} in flight at a kill (median {flight[len(flight) // 2]})\n"
            f"ended once: {len(self.ends)} tickets ({', '.join(f'{count} {status}' for status, count in sorted(how.items()))}) "
            f"and {len(self.batches)} batches of {BATCH_LINES} lines; {again} runs repeated, {sum(self.refused.values())} calls refused\n"
            + ("".join(f"WRONG: {line}\n" for line in self.found[:20]) or "every ticket ended exactly once, none was lost\n")
        )
