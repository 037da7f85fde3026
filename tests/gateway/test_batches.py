"""OpenAI's batches and files, by the official client and by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from tests.gateway.world import BODY, MODEL, Answer, Asked, Caller, World, answer, ask, get, never, put_json, run, until, world

from penstock.config import Class, Config, Limits, Tickets
from penstock.gateway import batches, files, tickets, validation

CHAT = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


def line(n: int, **other: Any) -> dict[str, Any]:
    body = BODY | {"messages": [{"role": "user", "content": f"line {n}"}]}
    return {"custom_id": f"c{n}", "method": "POST", "url": CHAT, "body": body} | other


def jsonl(*lines: object) -> bytes:
    return b"\n".join(one if isinstance(one, bytes) else msgspec.json.encode(one) for one in lines)


def client(w: World, key: str = "sk-none") -> Any:
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key=key, max_retries=0)


async def made(c: Any, data: bytes, **more: Any) -> Any:
    file = await c.files.create(file=("in.jsonl", data), purpose="batch")
    return await c.batches.create(**({"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | more))


async def ended(c: Any, id: str) -> Any:
    while (batch := await c.batches.retrieve(id)).status not in ENDED:
        await asyncio.sleep(0.01)
    return batch


async def content(c: Any, file: str | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    return [msgspec.json.decode(one) for one in (await c.files.content(file)).content.splitlines()]


def with_client(test: Callable[[World, Any], Any], *behaviours: Any, config: Config | None = None, **node: Any) -> None:
    async def whole() -> None:
        async with world(*behaviours, config=config, **node) as w, client(w) as c:
            await test(w, c)

    run(whole)


async def picky(asked: Asked) -> None:
    """Refuses every third line."""
    n = int(asked.json["messages"][0]["content"].split()[1])
    await (answer(asked) if n % 3 else put(asked))


async def put(asked: Asked) -> None:
    put_json(asked, {"error": {"message": "no"}}, 400)


def test_a_batch_from_file_to_files() -> None:
    async def test(w: World, c: Any) -> None:
        batch = await made(c, jsonl(*map(line, range(9))) + b"\n\n", metadata={"run": "7"})
        assert (batch.status, batch.metadata, batch.object) == ("validating", {"run": "7"}, "batch")
        batch = await ended(c, batch.id)
        counts = batch.request_counts
        assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 9, 6, 3)
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
        assert batch.expires_at - batch.created_at == 86_400
        good, bad = await content(c, batch.output_file_id), await content(c, batch.error_file_id)
        assert [one["custom_id"] for one in good] == ["c1", "c2", "c4", "c5", "c7", "c8"]
        assert [one["custom_id"] for one in bad] == ["c0", "c3", "c6"]
        assert good[0]["response"]["status_code"] == 200
        assert good[0]["response"]["body"]["object"] == "chat.completion"
        assert good[0]["response"]["request_id"] and good[0]["error"] is None
        assert bad[0]["response"]["status_code"] == 400
        assert len({one["id"] for one in good + bad}) == 9
        shown = await c.files.retrieve(batch.output_file_id)
        assert (shown.purpose, shown.filename) == ("batch_output", f"{batch.id}_output.jsonl")
        assert not w.gateway.jobs.tickets.jobs  # type: ignore[union-attr]

    with_client(test, picky)


def test_it_runs_at_the_lowest_priority() -> None:
    async def test(w: World, c: Any) -> None:
        seen: list[int] = []
        core = w.gateway.core
        await made(c, jsonl(line(0)))
        await until(lambda: core.flights)
        seen += [flight.priority for flight in core.flights.values()]
        assert seen == [1]
        assert all(flight.request.patient for flight in core.flights.values())

    with_client(test, never, config=Config(classes=(Class(name="all", priority=4, ttft_ms=1.0),)))


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (line(1, custom_id=7), "missing_required_parameter", "custom_id"),
        (line(1, custom_id=""), "missing_required_parameter", "custom_id"),
        (line(1, custom_id="c0"), "duplicate_custom_id", "custom_id"),
        (line(1, method="GET"), "invalid_method", "method"),
        (line(1, url="/v1/embeddings"), "mismatched_url", "url"),
        (line(1, body="text"), "missing_required_parameter", "body"),
        (line(1, body={"model": MODEL}), "missing_required_parameter", "messages"),
        (line(1, body=BODY | {"n": 1000}), "integer_above_max_value", "n"),
        (line(1, body=BODY | {"model": "gpt-9"}), "model_not_found", "model"),
    ],
)
def test_what_is_wrong_is_said_by_line(wrong: object, code: str, param: str | None) -> None:
    async def test(w: World, c: Any) -> None:
        batch = await ended(c, (await made(c, jsonl(line(0), b"", wrong, line(2)))).id)
        assert batch.status == "failed"
        assert batch.failed_at
        [error] = batch.errors.data
        assert (error.code, error.param, error.line) == (code, param, 3)
        assert error.message
        assert not w.asked
        assert batch.output_file_id is None

    with_client(test)


def test_a_file_without_requests_is_wrong_and_so_is_one_with_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "LINES", 2)

    async def test(w: World, c: Any) -> None:
        for data, code in (
            (b"\n\n", "empty_file"),
            (jsonl(*map(line, range(3))), "too_many_tasks"),
            (jsonl(*map(line, range(2))), "too_many_tickets"),
        ):
            batch = await ended(c, (await made(c, data)).id)
            assert (batch.status, batch.errors.data[0].code, batch.errors.data[0].line) == ("failed", code, None)
        jobs = w.gateway.jobs
        assert jobs is not None and (jobs.tickets.coming, len(jobs.tickets.jobs)) == (0, 0)
        assert await jobs.tickets.store.run(lambda c: c.execute("SELECT count(*) FROM jobs").fetchone()) == (0,)

    with_client(test, config=Config(tickets=Tickets(most=1)))


def test_errors_are_bounded() -> None:
    async def test(w: World, c: Any) -> None:
        batch = await ended(c, (await made(c, b"x\n" * 500)).id)
        assert [error.line for error in batch.errors.data] == list(range(1, 101))

    with_client(test)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"input_file_id": 7}, "input_file_id"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(more: dict[str, Any], param: str) -> None:
    async def test(w: World, c: Any) -> None:
        with pytest.raises(openai.BadRequestError) as error:
            await made(c, jsonl(line(0)), **more)
        assert error.value.param == param

    with_client(test)


def test_a_file_that_begins_with_a_byte_order_mark_and_ends_its_lines_as_windows_does_is_read() -> None:
    async def test(w: World, c: Any) -> None:
        batch = await ended(c, (await made(c, b"\xef\xbb\xbf" + jsonl(line(1), line(2)).replace(b"\n", b"\r\n"))).id)
        assert (batch.status, batch.request_counts.total) == ("completed", 2), batch.errors
        batch = await ended(c, (await made(c, jsonl(line(1)) + b"\n\xef\xbb\xbf" + jsonl(line(2)))).id)
        assert (batch.status, batch.errors.data[0].code) == ("failed", "invalid_json_line")

    with_client(test)


def test_what_a_batch_wrote_is_no_input_of_another() -> None:
    async def test(w: World, c: Any) -> None:
        batch = await ended(c, (await made(c, jsonl(line(1)))).id)
        with pytest.raises(openai.BadRequestError, match="purpose"):
            await c.batches.create(input_file_id=batch.output_file_id, endpoint=CHAT, completion_window="24h")

    with_client(test)


def test_a_batch_is_made_once_however_often_its_maker_repeats_itself() -> None:
    async def test(w: World, c: Any) -> None:
        file = await c.files.create(file=("in.jsonl", jsonl(line(1))), purpose="batch")
        make = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", "extra_headers": {"Idempotency-Key": "nightly"}}
        made = await asyncio.gather(*(c.batches.create(**make) for _ in range(5)))
        made.append(await c.batches.create(**make))
        assert {one.id for one in made} == {one.id for one in (await c.batches.list()).data}
        with pytest.raises(openai.UnprocessableEntityError, match="new key"):
            await c.batches.create(**make, metadata={"run": "2"})
        again = await ask(w.port, {"input_file_id": "none"}, "/v1/batches", headers={"idempotency-key": "bad"})
        assert (again.status, again.error["param"]) == (400, "endpoint")
        assert (await ask(w.port, {}, "/v1/batches", headers={"idempotency-key": ""})).error["code"] == "invalid_idempotency_key"
        assert len((await c.batches.list()).data) == 1

    with_client(test)


def test_a_batch_of_no_file_is_refused() -> None:
    async def test(w: World, c: Any) -> None:
        with pytest.raises(openai.NotFoundError):
            await made(c, jsonl(line(0)), input_file_id="file-none")
        assert (await ask(w.port, b"[]", "/v1/batches")).status == 400
        assert (await ask(w.port, b"{", "/v1/batches")).status == 400

    with_client(test)


def test_progress_is_shown_and_a_quarter_of_the_places_is_kept_for_tickets() -> None:
    gate = asyncio.Event()

    async def behave(asked: Asked) -> None:
        if int(asked.json["messages"][0]["content"].split()[-1]) > 1:
            await gate.wait()
        await answer(asked)

    async def test(w: World, c: Any) -> None:
        batch = await made(c, jsonl(*map(line, range(20))))
        while (shown := await c.batches.retrieve(batch.id)).request_counts.completed < 2:
            await asyncio.sleep(0.01)
        assert (shown.status, shown.request_counts.total) == ("in_progress", 20)
        await until(lambda: w.engines[0].open == 3)
        got = await ask(w.port, line(99)["body"], headers={"prefer": "respond-async"})
        await until(lambda: w.engines[0].open == 4)
        gate.set()
        assert (await get(w.port, f"/v1/tickets/{got.json['id']}?wait=20")).json["status"] == "completed"
        assert (await ended(c, batch.id)).request_counts.completed == 20

    with_client(test, behave, config=Config(tickets=Tickets(running=4)))


def test_cancelling_stops_what_runs_and_keeps_what_was_answered() -> None:
    async def behave(asked: Asked) -> None:
        await (answer if int(asked.json["messages"][0]["content"].split()[1]) < 2 else never)(asked)

    async def test(w: World, c: Any) -> None:
        batch = await made(c, jsonl(*map(line, range(50))))
        while (await c.batches.retrieve(batch.id)).request_counts.completed < 2:
            await asyncio.sleep(0.01)
        await until(lambda: w.engines[0].open)
        assert (await c.batches.cancel(batch.id)).status == "cancelling"
        batch = await ended(c, batch.id)
        assert (batch.status, bool(batch.cancelled_at), batch.request_counts.completed) == ("cancelled", True, 2)
        assert (await c.batches.cancel(batch.id)).status == "cancelled"
        await until(lambda: not w.engines[0].open)
        assert [one["custom_id"] for one in await content(c, batch.output_file_id)] == ["c0", "c1"]
        bad = await content(c, batch.error_file_id)
        assert len(bad) == 48
        assert (bad[0]["response"], bad[0]["error"]["code"]) == (None, "batch_cancelled")
        assert w.gateway.ledger.jobs.ended["cancelled"] == 48
        assert not w.gateway.core.flights

    with_client(test, behave, config=Config(tickets=Tickets(running=2)))


def test_what_has_ended_cannot_be_cancelled() -> None:
    async def test(w: World, c: Any) -> None:
        batch = await ended(c, (await made(c, jsonl(line(0)))).id)
        with pytest.raises(openai.BadRequestError):
            await c.batches.cancel(batch.id)

    with_client(test)


def test_what_is_not_done_within_the_window_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "SWEEP_S", 0.05)
    monkeypatch.setattr("penstock.gateway.batches.WINDOWS", {"24h": 1})

    async def behave(asked: Asked) -> None:
        await (answer if asked.json["messages"][0]["content"] == "line 0" else never)(asked)

    async def test(w: World, c: Any) -> None:
        batch = await ended(c, (await made(c, jsonl(*map(line, range(5))))).id)
        assert (batch.status, bool(batch.expired_at), batch.request_counts.completed) == ("expired", True, 1)
        assert {one["error"]["code"] for one in await content(c, batch.error_file_id)} == {"batch_expired"}

    with_client(test, behave, config=Config(tickets=Tickets(running=2)))


def test_batches_and_files_are_listed_a_page_at_a_time() -> None:
    async def test(w: World, c: Any) -> None:
        batches = [(await made(c, jsonl(line(0)))).id for _ in range(5)]
        assert [one.id async for one in c.batches.list(limit=2)] == batches[::-1]
        page = await c.batches.list(limit=2, after=batches[3])
        assert [one.id for one in page.data] == [batches[2], batches[1]]
        assert page.has_more
        inputs = [(await c.batches.retrieve(id)).input_file_id for id in batches]
        assert [one.id async for one in c.files.list(limit=2, purpose="batch", order="asc")] == inputs
        for path in ("/v1/files?limit=0", "/v1/files?limit=x", "/v1/files?order=up", "/v1/batches?limit=-1", "/v1/files?" + "a=b&" * 20):
            assert (await get(w.port, path)).status == 400
        many = await get(w.port, "/v1/batches?limit=99999999999999999999")
        assert [one["id"] for one in many.json["data"]] == batches[::-1]

    with_client(test)


def test_a_page_after_what_is_not_there_is_refused_since_it_would_look_like_the_last() -> None:
    async def test(w: World, c: Any) -> None:
        batch = await made(c, jsonl(line(0)))
        for path in ("/v1/batches?after=none", f"/v1/files?after={batch.id}", f"/v1/batches?after={batch.input_file_id}"):
            got = await get(w.port, path)
            assert (got.status, got.error["code"], got.error["param"]) == (400, "invalid_value", "after")
        assert (await get(w.port, f"/v1/batches?after={batch.id}")).json["data"] == []

    with_client(test)


def test_only_their_tenant_sees_files_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-desk,rival:sk-rival")

    async def test() -> None:
        async with world() as w, client(w, "sk-desk") as own, client(w, "sk-rival") as other:
            batch = await ended(own, (await made(own, jsonl(line(0)))).id)
            for call in (
                other.files.retrieve(batch.input_file_id),
                other.files.content(batch.output_file_id),
                other.files.delete(batch.input_file_id),
                other.batches.retrieve(batch.id),
                other.batches.cancel(batch.id),
                other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"),
            ):
                with pytest.raises(openai.NotFoundError):
                    await call
            assert (await other.files.list()).data == (await other.batches.list()).data == []
            assert (await get(w.port, f"/v1/files/{batch.input_file_id}/content")).status == 401
            # A line of a batch is no ticket of its own.
            assert (await get(w.port, "/v1/tickets/job_0", authorization="Bearer sk-desk")).status == 404

    run(test)


def test_a_batch_goes_on_under_the_next_gateway(tmp_path: Path) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite"), running=4))

    async def behave(asked: Asked) -> None:
        await (answer if int(asked.json["messages"][0]["content"].split()[1]) < 3 else never)(asked)

    async def test() -> None:
        async with world(behave, config=config) as w, client(w) as c:
            batch = await made(c, jsonl(*map(line, range(10))))
            while (await c.batches.retrieve(batch.id)).request_counts.completed < 3:
                await asyncio.sleep(0.01)
            assert (await c.files.delete(batch.input_file_id)).deleted
        async with world(config=config) as w, client(w) as c:
            batch = await ended(c, batch.id)
            assert (batch.status, batch.request_counts.completed) == ("completed", 10)
            assert [one["custom_id"] for one in await content(c, batch.output_file_id)] == [f"c{n}" for n in range(10)]
            assert len(w.asked) == 7

    run(test)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_batch_that_was_being_checked_is_checked_again(tmp_path: Path, cancelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite")))
    monkeypatch.setattr(validation, "GROUP", 2)
    stored = asyncio.Event()

    async def stuck(self: validation.Validation) -> None:
        if self._tickets.draining:
            raise asyncio.CancelledError
        await whole_store(self)
        if self._held >= 4:
            stored.set()
            await asyncio.Event().wait()

    async def test() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(validation.Validation, "_store", stuck)
            async with world(never, config=config) as w, client(w) as c:
                batch = await made(c, jsonl(*map(line, range(10))))
                await stored.wait()
                if cancelled:
                    assert (await c.batches.cancel(batch.id)).status == "cancelling"
        async with world(config=config) as w, client(w) as c:
            batch = await ended(c, batch.id)
            assert batch.status == ("cancelled" if cancelled else "completed")
            assert len(w.asked) == len(await content(c, batch.output_file_id)) == (0 if cancelled else 10)
            jobs = w.gateway.jobs
            assert jobs is not None
            assert await jobs.tickets.store.run(lambda c: c.execute("SELECT count(*) FROM jobs").fetchone()) == (0,)

    whole_store = validation.Validation._store
    run(test)


# --- files


def form(*parts: tuple[str, bytes], boundary: bytes = b"x", end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head.encode(), data) for head, data in parts) + b"--" + boundary + end


PURPOSE = ('content-disposition: form-data; name="purpose"', b"batch")


def file(data: bytes = b"{}", name: str = "a.jsonl") -> tuple[str, bytes]:
    return (f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream', data)


async def upload(w: World, body: bytes, kind: str = "multipart/form-data; boundary=x") -> Answer:
    return await ask(w.port, body, "/v1/files", headers={"content-type": kind})


def test_a_file_comes_back_to_the_byte() -> None:
    async def test(w: World, c: Any) -> None:
        data = bytes(range(256)) * 20_000 + b"\r\n--x-"
        got = (await upload(w, form(PURPOSE, file(data, 'C:\\\\up"/a\tb.jsonl')))).json
        assert (got["bytes"], got["purpose"], got["status"], got["object"]) == (len(data), "batch", "processed", "file")
        assert "/" not in got["filename"] and "\\" not in got["filename"]
        assert (await c.files.content(got["id"])).content == data
        assert (await c.files.delete(got["id"])).deleted
        for call in (c.files.retrieve, c.files.content, c.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(got["id"])

    with_client(test)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (form(file()), "multipart/form-data; boundary=x", 400, "invalid_value"),
        (
            form(("content-disposition: form-data; name=purpose", b"assistants"), file()),
            "multipart/form-data; boundary=x",
            400,
            "invalid_value",
        ),
        (form(PURPOSE), "multipart/form-data; boundary=x", 400, "missing_required_parameter"),
        (form(PURPOSE, file(b"")), "multipart/form-data; boundary=x", 400, "empty_file"),
        (form(PURPOSE, file(), file()), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form(PURPOSE, file(), end=b""), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form(PURPOSE, file()), "multipart/form-data; boundary=y", 400, "invalid_form"),
        (form(PURPOSE, ("x: y", b"1")), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form(("content-disposition: form-data; name=purpose", b"b" * 10_000)), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form(*[PURPOSE] * 40), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form((PURPOSE[0] + "; " + "x" * 9_000, b"batch")), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form(PURPOSE, file()), "multipart/form-data", 400, "invalid_content_type"),
        (form(PURPOSE, file()), "multipart/form-data; boundary=" + "x" * 71, 400, "invalid_content_type"),
        (b"{}", "application/json", 400, "invalid_content_type"),
        (b"", "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form(PURPOSE, file(b"x" * 1_001)), "multipart/form-data; boundary=x", 413, "file_too_large"),
    ],
)
def test_a_form_that_is_wrong_is_refused(body: bytes, kind: str, status: int, code: str) -> None:
    async def test(w: World, c: Any) -> None:
        got = await upload(w, body, kind)
        assert (got.status, got.error["code"]) == (status, code), got.body
        assert (await c.files.list()).data == []

    with_client(test, config=Config(tickets=Tickets(file_bytes=1_000)))


def test_a_malformed_form_is_told_to_its_sender_and_not_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test(w: World, c: Any) -> None:
        for kind in ("multipart/form-data; boundary=y", "multipart/form-data; boundary=x"):
            await upload(w, form(PURPOSE, file()) + b"more" * 100, kind)
        assert not [record for record in caplog.records if record.name.startswith("python_multipart")]

    with_client(test)


def test_a_file_without_a_name_is_told_what_it_lacks() -> None:
    async def test(w: World, c: Any) -> None:
        got = await upload(w, form(PURPOSE, ("content-disposition: form-data; name=file", b"{}")))
        assert (got.status, got.error["param"]) == (400, "file")
        assert "filename" in got.error["message"]

    with_client(test)


def test_a_file_goes_as_early_as_its_sender_asks_and_no_later_than_all_do() -> None:
    async def test(w: World, c: Any) -> None:
        for asked, kept in ((3_600, 3_600), (2_592_000, 86_400)):
            got = await c.files.create(file=("in.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": asked})
            assert got.expires_at - got.created_at == kept
        for wrong in (
            {"anchor": "now", "seconds": 3_600},
            {"anchor": "created_at", "seconds": 5},
            {"anchor": "created_at"},
            {"seconds": 3_600},
        ):
            with pytest.raises(openai.BadRequestError, match="expires_after"):
                await c.files.create(file=("in.jsonl", b"{}"), purpose="batch", expires_after=wrong)

    with_client(test)


def test_a_file_may_be_larger_than_a_call_for_whose_key_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-desk")

    async def test() -> None:
        config = Config(limits=Limits(body_bytes=10_000), tickets=Tickets(file_bytes=200_000))
        body = form(PURPOSE, file(b"x" * 150_000))
        kind = {"content-type": "multipart/form-data; boundary=x"}
        async with world(config=config) as w:
            key = {"authorization": "Bearer sk-desk"}
            assert (await ask(w.port, body, "/v1/files", headers=kind | key)).json["bytes"] == 150_000
            assert (await ask(w.port, body, "/v1/files", headers=kind)).status == 413
            assert (await ask(w.port, body, headers=kind | key)).status == 413
            assert (await ask(w.port, form(PURPOSE, file(b"x" * 400_000)), "/v1/files", headers=kind | key)).status == 413

    run(test)


def test_a_torn_upload_is_gone_after_a_restart(tmp_path: Path) -> None:
    config = Config(tickets=Tickets(path=str(tmp_path / "t.sqlite")))

    async def test() -> None:
        async with world(config=config) as w:
            jobs = w.gateway.jobs
            assert jobs is not None
            row = await jobs.files.begin("", "a", "batch")
            assert (await get(w.port, f"/v1/files/{row.id}")).status == 404
        async with world(config=config) as w:
            jobs = w.gateway.jobs
            assert jobs is not None
            assert await jobs.tickets.store.run(lambda c: c.execute("SELECT count(*) FROM files").fetchone()) == (0,)

    run(test)


def test_files_go_when_their_time_is_over() -> None:
    async def test(w: World, c: Any) -> None:
        file = await c.files.create(file=("in.jsonl", b"{}"), purpose="batch")
        while (await get(w.port, f"/v1/files/{file.id}")).status != 404:
            await asyncio.sleep(0.02)
        jobs = w.gateway.jobs
        assert jobs is not None
        assert await jobs.tickets.store.run(lambda c: c.execute("SELECT count(*) FROM pieces").fetchone()) == (0,)

    with_client(test, config=Config(tickets=Tickets(keep_s=0.3)))


def test_files_on_their_way_to_a_slow_disk_are_few_even_when_their_callers_leave() -> None:
    config = Config(limits=Limits(body_bytes=10_000), tickets=Tickets(file_bytes=200_000))
    body = form(PURPOSE, file(b"x" * 150_000))
    kind = {"content-type": "multipart/form-data; boundary=x"}

    async def test() -> None:
        async with world(config=config) as w:
            jobs = w.gateway.jobs
            assert jobs is not None
            disk = threading.Event()
            slow = asyncio.ensure_future(jobs.tickets.store.run(lambda _: disk.wait()))
            for count in range(1, files.UPLOADS * 200_000 // len(body) + 1):
                caller = await Caller(w.port).__aenter__()
                caller.send(body, "/v1/files", headers=kind)
                await until(lambda: jobs.files.coming_bytes == count * len(body))  # noqa: B023
                caller.leave()
            got = await ask(w.port, body, "/v1/files", headers=kind)
            assert (got.status, got.error["code"]) == (503, "too_many_uploads")
            disk.set()
            await slow
            await until(lambda: not jobs.files.coming_bytes)
            assert (await get(w.port, "/v1/files")).json["data"] == []
            left = "SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM pieces)"
            assert await jobs.tickets.store.run(lambda c: c.execute(left).fetchone()) == (0, 0)
            assert (await ask(w.port, body, "/v1/files", headers=kind)).status == 200

    run(test)


def test_batches_take_no_more_of_the_disk_than_there_is_for_them() -> None:
    async def test(w: World, c: Any) -> None:
        file = await c.files.create(file=("in.jsonl", jsonl(line(1) | {"method": "PUT"})), purpose="batch")
        w.gateway.jobs.tickets.store._most_pages = 60  # type: ignore[union-attr]
        metadata = {f"k{n}": "x" * 512 for n in range(16)}
        wanted = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", "metadata": metadata}
        made = 0
        while (got := await ask(w.port, wanted, "/v1/batches")).status == 200:
            await ended(c, got.json["id"])
            made += 1
        assert (got.status, got.error["code"]) == (503, "store_full") and 0 < made < 60

    with_client(test)


def test_the_lines_of_a_few_batches_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[int] = [0]
    reading = validation.Validation.run

    async def counted(self: validation.Validation) -> Any:
        at_work.append(at_work[-1] + 1)
        try:
            return await reading(self)
        finally:
            at_work.append(at_work[-1] - 1)

    monkeypatch.setattr(validation.Validation, "run", counted)

    async def test(w: World, c: Any) -> None:
        many = await asyncio.gather(*(made(c, jsonl(*map(line, range(20)))) for _ in range(12)))
        assert [(await ended(c, batch.id)).status for batch in many] == ["completed"] * 12
        assert max(at_work) <= batches.VALIDATED and at_work[-1] == 0

    with_client(test)
