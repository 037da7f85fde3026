"""Durable tickets as callers see them."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.world import (
    BODY,
    MODEL,
    STREAM,
    WORDS,
    Answer,
    Asked,
    Behave,
    Caller,
    World,
    answer,
    ask,
    get,
    never,
    put_json,
    refuse,
    run,
    until,
    world,
)

from penstock.config import Class, Config, Hold, Key, KeyLimit, Limits, Rung, Tickets, When
from penstock.gateway import tickets

ASYNC = {"prefer": "respond-async"}
ENDED = {"completed", "failed", "cancelled", "expired"}


def _words(n: int) -> dict[str, Any]:
    return BODY | {"messages": [{"role": "user", "content": f"ask {n}"}]}


def _asked(w: World) -> list[str]:
    return [asked.json["messages"][0]["content"] for asked in w.asked]


async def _ticket(w: World, body: object = BODY, **headers: str) -> dict[str, Any]:
    got = await ask(w.port, body, headers=ASYNC | headers)
    assert got.status == 202, got.body
    return got.json


async def _end(w: World, id: str, **headers: str) -> dict[str, Any]:
    got = await get(w.port, f"/v1/tickets/{id}?wait=20", **headers)
    assert got.json["status"] in ENDED, got.body
    return got.json


def _gated(gate: asyncio.Event, then: Behave = answer) -> Behave:
    async def behave(asked: Asked) -> None:
        await gate.wait()
        await then(asked)

    return behave


def test_a_ticket_is_given_at_once_and_holds_the_answer_later() -> None:
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate)) as w:
            got = await ask(w.port, BODY, headers=ASYNC)
            assert (got.status, got.headers["preference-applied"]) == (202, "respond-async")
            given = got.json
            assert got.headers["location"] == f"/v1/tickets/{given['id']}"
            assert 1 <= int(got.headers["retry-after"]) <= 60
            assert given["request_id"] == got.headers["x-penstock-request-id"]
            assert (given["object"], given["status"], given["model"]) == ("ticket", "queued", MODEL)
            assert len(given["id"]) == len("tkt_") + 32
            await until(lambda: w.asked)
            running = (await get(w.port, got.headers["location"])).json
            assert (running["status"], running["position"], running["class"], "result" in running) == ("running", 0, "default", False)
            gate.set()
            ended = await _end(w, given["id"])
            assert (ended["status"], ended["result"]["status_code"]) == ("completed", 200)
            assert ended["result"]["body"]["choices"][0]["message"]["content"] == "".join(WORDS)
            assert ended["expires_at"] >= given["expires_at"] > time.time()

    run(test)


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [
        ("respond-async", 202),
        ("Respond-Async; x=y, wait=10", 202),
        ("wait=10 , respond-async", 202),
        ("respond-sync", 200),
        ("wait=10", 200),
    ],
)
def test_a_ticket_is_given_to_who_prefers_it(prefer: str, wanted: int) -> None:
    async def test() -> None:
        async with world() as w, Caller(w.port) as caller:
            for _ in range(2):
                caller.send(BODY, headers={"prefer": prefer})
                assert (await caller.answer()).status == wanted
            caller.send(BODY)
            assert (await caller.answer()).status == 200

    run(test)


def test_a_stream_is_run_whole() -> None:
    async def test() -> None:
        async with world() as w:
            body = STREAM | {"stream_options": {"include_usage": True}, "temperature": 0.5}
            ended = await _end(w, (await _ticket(w, body))["id"])
            assert ended["result"]["body"]["object"] == "chat.completion"
            assert w.asked[0].json == BODY | {"temperature": 0.5}

    run(test)


def test_bad_calls_get_no_ticket() -> None:
    async def test() -> None:
        async with world() as w:
            for body, status in ((b"{", 400), (BODY | {"model": "gpt-9"}, 404), (BODY | {"n": 1000}, 400)):
                assert (await ask(w.port, body, headers=ASYNC)).status == status
            assert not w.gateway.jobs.tickets.jobs  # type: ignore[union-attr]

    run(test)


def test_only_its_tenant_sees_a_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-desk,rival:sk-rival")

    async def test() -> None:
        async with world() as w:
            own = {"authorization": "Bearer sk-desk"}
            id = (await _ticket(w, **own))["id"]
            ended = await _end(w, id, **own)
            for method in ("GET", "DELETE"):
                for path in (f"/v1/tickets/{id}", f"/v1/tickets/{id}?wait=1", "/v1/tickets/tkt_0", "/v1/tickets/'%20OR%201"):
                    got = await get(w.port, path, method, authorization="Bearer sk-rival")
                    assert (got.status, got.error["code"]) == (404, "not_found")
                assert (await get(w.port, f"/v1/tickets/{id}", method)).status == 401
            assert (await get(w.port, f"/v1/tickets/{id}", **own)).json == ended

    run(test)


def test_wrong_methods_are_told_the_right_ones() -> None:
    async def test() -> None:
        async with world(config=Config()) as w:
            for path, allow in (
                ("/v1/tickets/x", "GET, DELETE, HEAD, OPTIONS"),
                ("/v1/files", "GET, POST, HEAD, OPTIONS"),
                ("/v1/files/x", "GET, DELETE, HEAD, OPTIONS"),
                ("/v1/files/x/content", "GET, HEAD, OPTIONS"),
                ("/v1/batches", "GET, POST, HEAD, OPTIONS"),
                ("/v1/batches/x", "GET, HEAD, OPTIONS"),
                ("/v1/batches/x/cancel", "POST, OPTIONS"),
            ):
                got = await get(w.port, path, "PUT")
                assert (got.status, got.headers["allow"]) == (405, allow)
                got = await get(w.port, path, "OPTIONS")
                assert (got.status, got.headers["allow"]) == (204, allow)
            for path in ("/v1/tickets", "/v1/tickets/", "/v1/tickets/a/b", "/v1/filesx", "/v2/files"):
                assert (await get(w.port, path)).status == 404

    run(test)


def test_head_is_answered_without_a_body() -> None:
    async def test() -> None:
        async with world() as w, Caller(w.port) as caller:
            id = (await _ticket(w))["id"]
            caller.send(None, f"/v1/tickets/{id}", method="HEAD")
            assert (await caller.head())[0] == 200
            caller.send(None, f"/v1/tickets/{id}", method="GET")
            assert (await caller.answer()).json["id"] == id

    run(test)


def test_pages_of_other_sites_may_not_use_it_where_no_key_is_needed() -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, b"x", "/v1/files", headers={"origin": "https://evil.example", "content-type": "multipart/form-data"})
            assert (got.status, got.error["code"]) == (403, "origin_not_allowed")

    run(test)


def test_an_engines_refusal_is_the_result() -> None:
    async def test() -> None:
        async with world(refuse(400, {"error": {"message": "too long"}})) as w:
            ended = await _end(w, (await _ticket(w))["id"])
            assert ended["status"] == "failed"
            assert ended["result"] == {"status_code": 400, "body": {"error": {"message": "too long"}}}
            assert len(w.asked) == 1

    run(test)


def test_failures_of_engines_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "FIRST_WAIT_S", 0.01)

    async def behave(asked: Asked) -> None:
        seen.append(asked)
        await (refuse(500)(asked) if len(seen) < 4 else answer(asked))

    seen: list[Asked] = []

    async def test() -> None:
        async with world(behave) as w:
            assert (await _end(w, (await _ticket(w))["id"]))["status"] == "completed"
            assert w.gateway.ledger.jobs.retries == 3

    run(test)


def test_what_fails_too_often_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(tickets, "FAILURES", 3)

    async def test() -> None:
        async with world(refuse(500)) as w:
            ended = await _end(w, (await _ticket(w))["id"])
            assert (ended["status"], ended["result"]["status_code"]) == ("failed", 503)
            assert ended["result"]["body"]["error"]["code"] == "failed"
            assert len(w.asked) == 3

    run(test)


def test_while_no_engine_is_up_a_ticket_waits() -> None:
    async def test() -> None:
        async with world(config=Config(probe_s=0.02, limits=Limits(connect_s=0.2))) as w:
            await w.engines[0].stop()
            await until(lambda: not w.gateway.core.ready())
            id = (await _ticket(w))["id"]
            shown = (await get(w.port, f"/v1/tickets/{id}")).json
            assert (shown["status"], shown["position"]) == ("queued", 1)
            await w.engines[0].start()
            assert (await _end(w, id))["status"] == "completed"

    run(test)


def test_an_answer_too_large_to_keep_is_a_failure() -> None:
    async def behave(asked: Asked) -> None:
        put_json(asked, {"text": "x" * 500_000})

    async def test() -> None:
        async with world(behave, config=Config(limits=Limits(body_bytes=400_000))) as w:
            ended = await _end(w, (await _ticket(w))["id"])
            assert (ended["status"], ended["result"]["body"]["error"]["code"]) == ("failed", "answer_too_large")

    run(test)


def test_a_large_answer_is_kept_whole() -> None:
    async def behave(asked: Asked) -> None:
        put_json(asked, {"text": "x" * 500_000})

    async def test() -> None:
        async with world(behave) as w:
            ended = await _end(w, (await _ticket(w))["id"])
            assert len(ended["result"]["body"]["text"]) == 500_000

    run(test)


def test_an_answer_that_is_no_json_is_kept_as_text() -> None:
    async def behave(asked: Asked) -> None:
        asked.writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\n"\xff{')

    async def test() -> None:
        async with world(behave) as w:
            assert (await _end(w, (await _ticket(w))["id"]))["result"]["body"] == '"�{'

    run(test)


def test_no_more_than_so_many_run_and_the_others_have_a_place() -> None:
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate), config=Config(tickets=Tickets(running=2))) as w:
            ids = [(await _ticket(w, _words(n)))["id"] for n in range(6)]
            await until(lambda: len(w.asked) == 2)
            shown = [(await get(w.port, f"/v1/tickets/{id}")).json for id in ids]
            assert [(one["status"], one["position"]) for one in shown] == [("running", 0)] * 2 + [("queued", n) for n in range(1, 5)]
            book = w.gateway.ledger.jobs
            assert (book.running, book.queued) == (2, 4)
            gate.set()
            for id in ids:
                assert (await _end(w, id))["status"] == "completed"
            assert _asked(w) == [f"ask {n}" for n in range(6)]
            assert (book.running, book.queued, book.ended["completed"]) == (0, 0, 6)

    run(test)


def test_too_many_tickets_are_refused_with_a_time_to_come_back() -> None:
    async def test() -> None:
        async with world(never, config=Config(tickets=Tickets(most=3))) as w:
            got = await asyncio.gather(*(ask(w.port, BODY, headers=ASYNC) for _ in range(5)))
            assert sorted(one.status for one in got) == [202, 202, 202, 503, 503]
            refused = next(one for one in got if one.status == 503)
            assert (refused.error["code"], refused.headers["x-should-retry"]) == ("too_many_tickets", "true")
            assert int(refused.headers["retry-after"]) > 0
            assert (await ask(w.port, {}, "/v1/batches")).status == 400

    run(test)


def test_deleting_stops_the_engine_and_is_told_again_and_again() -> None:
    async def test() -> None:
        async with world(never, config=Config(tickets=Tickets(running=1))) as w:
            first, second = (await _ticket(w))["id"], (await _ticket(w))["id"]
            await until(lambda: w.engines[0].open)
            for id in (second, first):
                for _ in range(2):
                    got = await get(w.port, f"/v1/tickets/{id}", "DELETE")
                    assert (got.status, got.json["status"]) == (200, "cancelled")
            await until(lambda: not w.engines[0].open)
            assert not w.gateway.core.flights
            assert len(w.asked) == 1
            assert w.gateway.ledger.jobs.ended["cancelled"] == 2

    run(test)


def test_deleting_what_has_ended_changes_nothing() -> None:
    async def test() -> None:
        async with world() as w:
            id = (await _ticket(w))["id"]
            ended = await _end(w, id)
            assert (await get(w.port, f"/v1/tickets/{id}", "DELETE")).json == ended

    run(test)


def test_cancelled_tickets_leave_nothing_behind_while_the_line_stands_still() -> None:
    async def test() -> None:
        async with world(never, config=Config(tickets=Tickets(running=1))) as w:
            await _ticket(w)
            for _ in range(200):
                await get(w.port, f"/v1/tickets/{(await _ticket(w))['id']}", "DELETE")
            jobs = w.gateway.jobs
            assert jobs is not None
            assert len(jobs.tickets.jobs) == 1
            assert sum(len(row.jobs) for row in jobs.tickets.places._singles._rows.values()) < 100
            assert (await _ticket(w))["position"] <= 2

    run(test)


def test_waiting_ends_with_the_ticket_or_with_its_time() -> None:
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate)) as w:
            id = (await _ticket(w))["id"]
            assert (await get(w.port, f"/v1/tickets/{id}?wait=0.05")).json["status"] in ("queued", "running")
            polls = [asyncio.ensure_future(get(w.port, f"/v1/tickets/{id}?wait=60")) for _ in range(3)]
            async with Caller(w.port) as gone:
                gone.send(None, f"/v1/tickets/{id}?wait=60", method="GET")
                jobs = w.gateway.jobs
                assert jobs is not None
                await until(lambda: len(jobs.tickets.jobs[id].waiters) == 4)
            await until(lambda: len(jobs.tickets.jobs[id].waiters) == 3)
            gate.set()
            assert [(await poll).json["status"] for poll in polls] == ["completed"] * 3

    run(test)


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "inf", "1e99"])
def test_a_wait_that_is_no_time_is_refused(wait: str) -> None:
    async def test() -> None:
        async with world(never) as w:
            got = await get(w.port, f"/v1/tickets/{(await _ticket(w))['id']}?wait={wait}")
            assert (got.status, got.error["param"]) == (400, "wait")

    run(test)


def test_what_waits_for_too_long_expires_and_what_ended_is_deleted() -> None:
    async def test() -> None:
        config = Config(tickets=Tickets(running=1, keep_s=0.4))
        gate = asyncio.Event()
        async with world(_gated(gate), config=config) as w:
            first, second = (await _ticket(w))["id"], (await _ticket(w))["id"]
            assert (await _end(w, second))["status"] == "expired"
            gate.set()
            assert (await _end(w, first))["status"] == "completed"
            for id in (first, second):
                while (await get(w.port, f"/v1/tickets/{id}")).status != 404:
                    await asyncio.sleep(0.02)

    run(test)


def test_a_waiting_caller_who_gets_no_newlines_gets_no_newlines() -> None:
    """A job has no connection to be kept alive."""
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate), config=Config(hold=Hold(quiet_s=0.0, interval_s=0.02, json=True))) as w:
            id = (await _ticket(w))["id"]
            plain = asyncio.ensure_future(ask(w.port, BODY))
            await until(lambda: len(w.asked) == 2)
            await asyncio.sleep(0.1)
            gate.set()
            assert (await plain).body.startswith(b"\n")
            assert (await _end(w, id))["status"] == "completed"

    run(test)


def test_what_the_head_and_the_key_say_of_a_call_holds_for_its_ticket_and_after_a_restart(tmp_path: Path) -> None:
    rules = (Class(name="gold", priority=4, when=When(header={"x-desk": "none"})), Class(name="bulk", when=When(header={"x-desk": "b*"})))
    key = Key(name="desk", sha256=sha256(b"sk-desk").hexdigest(), classes=("gold",), max_priority=2)
    config = Config(keys=(key,), classes=rules, tickets=Tickets(path=str(tmp_path / "t.sqlite")))

    async def test() -> None:
        own = {"authorization": "Bearer sk-desk"}
        async with world(never, config=config) as w:
            ids = {(await _ticket(w, **own | more))["id"] for more in ({"x-penstock-class": "gold"}, {"x-desk": "bond"})}
            got = await ask(w.port, BODY, headers=ASYNC | own | {"x-penstock-class": "bulk"})
            assert (got.status, got.error["code"]) == (403, "class_not_allowed")
        async with world(never, config=config) as w:
            await until(lambda: len(w.asked) == 2)
            assert {(f.task.name, f.priority, f.request.tenant) for f in w.gateway.core.flights.values()} == {
                ("gold", 2, "desk"),
                ("bulk", 2, "desk"),
            }
            assert {(await get(w.port, f"/v1/tickets/{id}", **own)).json["class"] for id in ids} == {"gold", "bulk"}

    run(test)


def test_limits_of_a_key_pace_its_tickets_and_no_others() -> None:
    def key(name: str, **more: Any) -> Key:
        return Key(name=name, sha256=sha256(f"sk-{name}".encode()).hexdigest(), **more)

    keys = (key("slow", limits=(KeyLimit(requests=2, window_s=0.5),)), key("free"), key("small", limits=(KeyLimit(tokens=3),)))
    config = Config(keys=keys, tickets=Tickets(running=1))

    async def test() -> None:
        async with world(config=config) as w:
            slow, free, small = ({"authorization": f"Bearer sk-{name}"} for name in ("slow", "free", "small"))
            began = time.monotonic()
            ids = [(await _ticket(w, **slow))["id"] for _ in range(5)]
            other = (await _ticket(w, _words(9), **free))["id"]
            assert (await _end(w, other, **free))["status"] == "completed"
            assert [(await _end(w, id, **slow))["status"] for id in ids] == ["completed"] * 5
            assert time.monotonic() - began > 0.5
            assert _asked(w).index("ask 9") < 5
            never_fits = await _end(w, (await _ticket(w, **small))["id"], **small)
            assert (never_fits["status"], never_fits["result"]["status_code"]) == ("failed", 429)

    run(test)


def test_a_repeat_with_the_same_key_gets_the_same_ticket() -> None:
    async def test() -> None:
        async with world() as w:
            more = ASYNC | {"idempotency-key": "once"}
            got = await asyncio.gather(*(ask(w.port, BODY, headers=more) for _ in range(3)))
            got.append(await ask(w.port, BODY, headers=more))
            assert {one.status for one in got} == {202}
            assert len({one.json["id"] for one in got}) == 1
            assert [one.headers.get("idempotent-replayed") for one in got].count("true") == 3
            assert len({one.headers["x-penstock-request-id"] for one in got}) == 4
            assert (await ask(w.port, _words(2), headers=more)).status == 422
            await _end(w, got[0].json["id"])
            assert len(w.asked) == 1

    run(test)


def test_a_ticket_that_was_not_stored_may_be_asked_for_again_with_the_same_key() -> None:
    async def test() -> None:
        async with world(never, config=Config(tickets=Tickets(most=1))) as w:
            more = ASYNC | {"idempotency-key": "once"}
            first = await _ticket(w)
            for _ in range(2):
                assert (await ask(w.port, BODY, headers=more)).status == 503
            await get(w.port, f"/v1/tickets/{first['id']}", "DELETE")
            assert (await ask(w.port, BODY, headers=more)).status == 202

    run(test)


# --- across processes


def test_a_stopped_gateways_tickets_run_under_the_next_in_their_order(tmp_path: Path) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite"), running=1))

    async def test() -> None:
        async with world(never, config=config) as w:
            ids = [(await _ticket(w, _words(n)))["id"] for n in range(4)]
            assert (await get(w.port, f"/v1/tickets/{ids[1]}", "DELETE")).json["status"] == "cancelled"
            await until(lambda: w.asked)
        async with world(config=config) as w:
            shown = [await _end(w, id) for id in ids]
            assert [one["status"] for one in shown] == ["completed", "cancelled", "completed", "completed"]
            assert _asked(w) == ["ask 0", "ask 2", "ask 3"]
        async with world(config=config) as w:
            assert [await _end(w, id) for id in ids] == shown
            assert not w.asked

    run(test)


def test_stopping_lets_running_tickets_end_and_answers_who_waits(tmp_path: Path) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite"), running=1), limits=Limits(drain_s=20))
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate), config=config) as w:
            first, second = (await _ticket(w))["id"], (await _ticket(w))["id"]
            await until(lambda: w.asked)
            poll: asyncio.Future[Answer] = asyncio.ensure_future(get(w.port, f"/v1/tickets/{second}?wait=60"))
            jobs = w.gateway.jobs
            assert jobs is not None
            await until(lambda: jobs.tickets.jobs[second].waiters)
            stopping = asyncio.ensure_future(w.gateway.stop())
            assert (await poll).json["status"] == "queued"
            gate.set()
            await stopping
        async with world(never, config=config) as w:
            assert (await get(w.port, f"/v1/tickets/{first}")).json["status"] == "completed"
            await until(lambda: w.asked)
            assert (await get(w.port, f"/v1/tickets/{second}")).json["status"] == "running"

    run(test)


def test_stopping_does_not_wait_for_tickets_that_wait_for_an_engine(tmp_path: Path) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite")), limits=Limits(drain_s=25), probe_s=0.02)

    async def test() -> None:
        async with world(config=config) as w:
            await w.engines[0].stop()
            await until(lambda: not w.gateway.core.ready())
            id = (await _ticket(w))["id"]
            await until(lambda: w.gateway.core.flights)
            began = time.monotonic()
            await w.gateway.stop()
            assert time.monotonic() - began < 10
        async with world(config=config) as w:
            assert (await _end(w, id))["status"] == "completed"

    run(test)


def test_a_ticket_whose_model_is_gone_says_so_when_its_time_is_over(tmp_path: Path) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite"), running=1, keep_s=2.0))

    async def test() -> None:
        async with world(never, config=config) as w:
            id = (await _ticket(w))["id"]
        async with world(config=config, models=("other",)) as w:
            assert (await _end(w, id))["status"] == "expired"

    run(test)


# --- the ladder's rung


def _diverted(w: World) -> None:
    """What the driver does with the core's Divert: the core is done with the call, its caller is not."""
    [call] = [call for call in w.gateway.driver.calls.values() if call.ask.asked_model == MODEL and not call.node]
    w.gateway.driver.cancelled(call)
    w.gateway.driver.takers["ticket"](call)


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["json", "stream"])
def test_a_diverted_call_becomes_a_ticket(body: dict[str, Any]) -> None:
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate), max_running=1) as w, Caller(w.port) as running:
            running.send(BODY)
            await until(lambda: w.asked)
            waiting = asyncio.ensure_future(ask(w.port, body))
            await until(lambda: len(w.gateway.driver.calls) == 2)
            _diverted(w)
            got = await waiting
            assert got.status == 202
            gate.set()
            assert (await _end(w, got.json["id"]))["status"] == "completed"

    run(test)


def test_a_stream_that_was_committed_is_told_of_its_ticket_in_an_error_event() -> None:
    gate = asyncio.Event()

    async def test() -> None:
        config = Config(hold=Hold(quiet_s=0.02, interval_s=0.02))
        async with world(_gated(gate), config=config, max_running=1) as w, Caller(w.port) as running, Caller(w.port) as waiting:
            running.send(BODY)
            await until(lambda: w.asked)
            waiting.send(STREAM)
            assert (await waiting.head())[0] == 200
            _diverted(w)
            body = b""
            while piece := await waiting.piece():
                body += piece
            [event] = Answer(200, {}, body, True).events
            error = Answer(200, {}, event, True).error
            assert error["code"] == "ticket"
            gate.set()
            assert (await _end(w, error["ticket"]["id"]))["status"] == "completed"

    run(test)


TO_TICKETS = Config(classes=(Class(name="all", ladder=(Rung.TICKET,)),))
ONCE = {"idempotency-key": "once"}


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["json", "stream"])
def test_repeats_of_a_call_that_became_a_ticket_get_that_ticket(body: dict[str, Any]) -> None:
    gate = asyncio.Event()

    async def test() -> None:
        async with world(_gated(gate), config=TO_TICKETS, max_running=1) as w, Caller(w.port) as running:
            running.send(_words(1))
            await until(lambda: w.asked)
            got = await asyncio.gather(*(ask(w.port, body, headers=ONCE) for _ in range(3)))
            got.append(await ask(w.port, body, headers=ONCE))
            assert {(one.status, one.headers["x-penstock-served-by"]) for one in got} == {(202, "ticket")}
            assert len({one.json["id"] for one in got}) == 1
            assert [one.headers.get("idempotent-replayed") for one in got].count("true") == 3
            gate.set()
            assert (await _end(w, got[0].json["id"]))["status"] == "completed"
            assert len(w.asked) == 2

    run(test)


def test_a_call_that_could_become_no_ticket_may_be_repeated() -> None:
    gate = asyncio.Event()
    config = Config(classes=TO_TICKETS.classes, tickets=Tickets(most=1))

    async def test() -> None:
        async with world(_gated(gate), config=config, max_running=1) as w, Caller(w.port) as running:
            running.send(_words(1))
            await until(lambda: w.asked)
            first = await ask(w.port, _words(2))
            for _ in range(2):
                assert (await ask(w.port, BODY, headers=ONCE)).status == 503
            await get(w.port, f"/v1/tickets/{first.json['id']}", "DELETE")
            assert (await ask(w.port, BODY, headers=ONCE)).status == 202
            gate.set()

    run(test)


def test_a_committed_stream_that_became_a_ticket_is_repeated_and_one_that_could_not_is_not() -> None:
    gate = asyncio.Event()
    classes = (Class(name="all", total_ms=400.0, ladder=(Rung.WAIT, Rung.TICKET)),)
    config = Config(classes=classes, hold=Hold(quiet_s=0.02, interval_s=0.02), tickets=Tickets(most=1))

    async def test() -> None:
        async with world(_gated(gate), config=config, max_running=1) as w, Caller(w.port) as running:
            running.send(_words(1))
            await until(lambda: w.asked)

            async def told(**headers: str) -> dict[str, Any]:
                got = await ask(w.port, STREAM, headers=headers)
                return Answer(got.status, {}, got.events[-1], True).error if got.events else got.error

            first = await _ticket(w, _words(2))
            assert {(await told(**ONCE))["code"] for _ in range(2)} == {"too_many_tickets"}
            await get(w.port, f"/v1/tickets/{first['id']}", "DELETE")
            became, again = [await told(**ONCE) for _ in range(2)]
            assert became["code"] == "ticket"
            assert again["ticket"]["id"] == became["ticket"]["id"]
            gate.set()

    run(test)


def test_a_call_that_became_a_ticket_is_one_request_of_its_key() -> None:
    gate = asyncio.Event()
    key = Key(name="desk", sha256=sha256(b"sk-desk").hexdigest(), limits=(KeyLimit(requests=9),))
    plain = Key(name="lab", sha256=sha256(b"sk-lab").hexdigest())

    async def test() -> None:
        config = Config(classes=TO_TICKETS.classes, keys=(key, plain))
        async with world(_gated(gate), config=config, max_running=1) as w, Caller(w.port) as running:
            desk, lab = ({"authorization": f"Bearer sk-{name}"} for name in ("desk", "lab"))
            running.send(_words(1), headers=desk)
            await until(lambda: w.asked)
            tickets = [(await ask(w.port, BODY, headers=own)).json["id"] for own in (desk, lab)]
            assert [one.requests for one in w.gateway.key_use()] == [0, 0]
            gate.set()
            for id, own in zip(tickets, (desk, lab), strict=True):
                assert (await _end(w, id, **own))["status"] == "completed"
            await until(lambda: not any(one.running for one in w.gateway.key_use()))
            assert [one.requests for one in w.gateway.key_use()] == [2, 1]
            assert w.gateway.key_use()[0].windows[0].used == 2

    run(test)
