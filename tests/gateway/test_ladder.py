"""Rungs as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.gateway.world import BODY, MODEL, STREAM, WORDS, Asked, Behave, Caller, World, answer, ask, never, refuse, run, until, world

from penstock.config import Class, Config, Hold, Rung
from penstock.gateway.replay import replay

SMALL = "deepseek-small"
LADDER = (Rung.WAIT, Rung.SMALLER)


@asynccontextmanager
async def two_models(
    first: Behave, *ladder: Rung, hold: Hold | None = None, journal: Path | None = None, **rule: Any
) -> AsyncIterator[World]:
    """n0 serves the model that is asked for, one request at a time; n1 the smaller one."""
    rules = (Class(name="it", ladder=ladder, **rule),)
    config = Config(classes=rules, smaller={MODEL: SMALL}, hold=hold or Hold())
    models = ({"models": (MODEL,), "max_running": 1}, {"models": (SMALL,)})
    async with world(first, answer, config=config, journal=journal, each=models) as w:
        yield w


@asynccontextmanager
async def busy(w: World) -> AsyncIterator[None]:
    """While n0 answers somebody else."""
    async with Caller(w.port) as other:
        other.send(BODY)
        await until(lambda: w.engines[0].open)
        yield


def test_a_smaller_model_serves_who_cannot_wait_and_is_named() -> None:
    async def test() -> None:
        async with two_models(never, Rung.SMALLER) as w, busy(w):
            got = await ask(w.port, BODY | {"seed": 2**53 + 1})
            assert (got.status, got.headers["x-penstock-served-by"], got.headers["x-penstock-node"]) == (200, "smaller", "n1")
            assert w.engines[1].asked[0].json["model"] == SMALL
            assert b"9007199254740993" in w.engines[1].asked[0].body
            got = await ask(w.port, STREAM)
            assert (got.text, got.headers["x-penstock-served-by"]) == ("".join(WORDS), "smaller")
            assert w.engines[1].asked[1].json["stream_options"]["include_usage"] is True

    run(test)


def test_served_at_once_by_the_model_asked_for_names_no_rung() -> None:
    async def test() -> None:
        async with two_models(answer, Rung.WAIT, Rung.SMALLER) as w:
            assert "x-penstock-served-by" not in (await ask(w.port, BODY)).headers

    run(test)


def test_who_waited_is_told_so() -> None:
    async def slow(asked: Asked) -> None:
        await asyncio.sleep(0.1)
        await answer(asked)

    async def test() -> None:
        async with two_models(slow, Rung.WAIT) as w, busy(w):
            assert (await ask(w.port, BODY)).headers["x-penstock-served-by"] == "wait"

    run(test)


def test_who_waited_in_vain_is_served_by_the_smaller_model() -> None:
    async def test() -> None:
        async with two_models(never, Rung.WAIT, Rung.SMALLER, ttft_ms=700) as w, busy(w):
            got = await ask(w.port, STREAM)
            assert (got.text, got.headers["x-penstock-served-by"]) == ("".join(WORDS), "wait, smaller")

    run(test)


def test_a_committed_stream_names_its_rungs_in_a_comment_before_its_first_event() -> None:
    async def test() -> None:
        hold = Hold(quiet_s=0.05, interval_s=0.1)
        async with two_models(never, Rung.WAIT, Rung.SMALLER, ttft_ms=700, hold=hold) as w, busy(w):
            got = await ask(w.port, STREAM)
            assert got.headers["x-penstock-served-by"] == "wait"
            comments, _, _ = got.body.partition(b"data: ")
            assert comments.startswith(b": queued ") and comments.endswith(b": served-by wait, smaller\n\n")
            assert got.text == "".join(WORDS)

    run(test)


def test_a_ladder_without_wait_refuses_at_once() -> None:
    async def test() -> None:
        async with two_models(never, Rung.REJECT) as w, busy(w):
            got = await ask(w.port, BODY)
            assert (got.status, got.error["code"]) == (503, "refused_full")
            assert int(got.headers["retry-after-ms"]) > 0

    run(test)


def test_a_ticket_is_given_for_what_cannot_start_and_the_rung_is_named() -> None:
    async def test() -> None:
        async with two_models(never, Rung.TICKET) as w, busy(w):
            got = await ask(w.port, BODY)
            assert (got.status, got.headers["x-penstock-served-by"]) == (202, "ticket")
            assert got.headers["location"].startswith("/v1/tickets/")

    run(test)


def test_where_nobody_takes_tickets_the_rung_is_passed() -> None:
    async def test() -> None:
        async with two_models(never, Rung.TICKET) as w, busy(w):
            del w.gateway.driver.takers["ticket"]
            assert (await ask(w.port, BODY)).status == 503

    run(test)


def test_a_journal_of_diverted_requests_replays(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_models(never, Rung.CACHE, Rung.SMALLER, journal=tmp_path) as w, busy(w):
            body = BODY | {"temperature": 0}
            assert (await ask(w.port, body)).headers["x-penstock-served-by"] == "smaller"
            assert (await ask(w.port, STREAM | {"model": SMALL, "temperature": 0})).status == 200
            assert (await ask(w.port, STREAM | {"model": SMALL, "temperature": 0})).headers["x-penstock-served-by"] == "cache"

    run(test)
    result = replay(tmp_path)
    assert result.difference is None and result.actions >= 4


def test_rungs_are_counted_by_class() -> None:
    async def test() -> None:
        async with two_models(never, Rung.SMALLER) as w, busy(w):
            await ask(w.port, BODY)
            books = w.gateway.ledger.classes
            await until(lambda: books["it"].rungs == {"smaller": 1})

    run(test)


def test_the_header_is_shown_to_pages() -> None:
    async def test() -> None:
        listen = msgspec.structs.replace(Config().listen, cors=("https://page.example",))
        async with world(config=Config(listen=listen)) as w:
            got = await ask(w.port, BODY, headers={"origin": "https://page.example"})
            assert "x-penstock-served-by" in got.headers["access-control-expose-headers"]

    run(test)


def test_a_ticket_for_what_a_smaller_model_failed_is_for_the_model_asked_for() -> None:
    async def test() -> None:
        rules = (Class(name="it", ladder=(Rung.SMALLER, Rung.TICKET)),)
        config = Config(classes=rules, smaller={MODEL: SMALL})
        models = ({"models": (MODEL,), "max_running": 1}, {"models": (SMALL,)})
        async with world(never, refuse(500), config=config, each=models) as w, busy(w):
            got = await ask(w.port, BODY)
            assert (got.status, got.json["model"], len(w.engines[1].asked)) == (202, MODEL, 1)

    run(test)
