"""What callers ask for in headers and metadata, on real sockets, and what their key makes of it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
from tests.gateway.world import BODY, Answer, Caller, World, ask, run, world

from penstock.config import Class, Config, Key, Range, Rung, When
from penstock.errors import CallError
from penstock.events import Arrived, Event
from penstock.facts import Request
from penstock.gateway.asked import NOTHING, Form, rungs
from penstock.gateway.auth import ENVIRONMENT, LOCAL, Tenant
from penstock.gateway.journal import Journal
from penstock.gateway.replay import replay
from penstock.journal import read

RULES = (
    Class(name="large", priority=5, when=When(metadata={"order.amount": Range(gt=1_000_000)})),
    Class(name="report", priority=1, timeout="none", when=When(header={"X-Task": "report*"})),
    Class(name="trade", priority=4, ttft_ms=20_000.0, when=When(tenant="desk")),
    Class(name="trade-now", priority=5, when=When(tenant="nobody")),
    Class(name="rest", priority=2),
)
OPEN = Config(classes=RULES)
KEYED = Config(
    classes=RULES,
    keys=(
        Key(name="desk", sha256=sha256(b"sk-desk").hexdigest(), classes=("trade*",)),
        Key(name="lab", sha256=sha256(b"sk-lab").hexdigest(), max_priority=3),
    ),
)
DESK, LAB = {"authorization": "Bearer sk-desk"}, {"authorization": "Bearer sk-lab"}


def watched(w: World) -> list[Request]:
    """The requests that the core is told of from now on."""
    seen: list[Request] = []

    class Watch:
        def write(self, now: float, event: Event, actions: object) -> None:
            if isinstance(event, Arrived):
                seen.append(event.request)

        def flush(self) -> None:
            pass

    w.gateway.driver.journal = cast(Journal, Watch())
    return seen


def booked(w: World) -> dict[str, int]:
    return {name: book.arrivals for name, book in w.gateway.ledger.classes.items()}


def asking(task: str, **more: str) -> dict[str, str]:
    return {"x-penstock-class": task, **more}


def refusal(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.error["code"], answer.error["param"]


def test_rules_see_the_metadata_and_headers_they_name_and_nothing_else() -> None:
    async def test() -> None:
        async with world(config=OPEN) as w:
            seen = watched(w)
            large = BODY | {"metadata": {"order": {"amount": "2e6"}, "secret": "x"}}
            small = BODY | {"metadata": {"order": {"amount": 5}}}
            for body, headers in ((large, {}), (small, {"X-TASK": "report-7", "x-other": "y"}), (BODY, {})):
                assert (await ask(w.port, body, headers=headers)).status == 200
            assert [(one.metadata, one.headers) for one in seen] == [
                ({"order.amount": "2e6"}, {}), ({"order.amount": "5"}, {"x-task": "report-7"}), ({}, {}),
            ]  # fmt: skip
            assert booked(w) == {"large": 1, "report": 1, "rest": 1}
            # The engine is sent what the caller sent.
            assert w.asked[0].json["metadata"] == large["metadata"]

    run(test)


def test_metadata_too_large_or_no_object_is_named_and_never_reaches_an_engine() -> None:
    async def test() -> None:
        async with world(config=OPEN) as w:
            large = await ask(w.port, BODY | {"metadata": {"x": "y" * 16_384}})
            assert refusal(large) == (400, "object_above_max_length", "metadata")
            assert refusal(await ask(w.port, BODY | {"metadata": "x"})) == (400, "invalid_value", "metadata")
            assert not w.asked
        async with world() as w:
            # Where no rule looks at it, it is the engine's to judge.
            assert (await ask(w.port, BODY | {"metadata": "x" * 20_000})).status == 200

    run(test)


def test_headers_that_rules_read_are_kept_with_a_connection_and_never_longer_than_true() -> None:
    async def test() -> None:
        async with world(config=OPEN) as w, Caller(w.port) as caller:
            seen = watched(w)
            for task in ("report", "report", "other", None, "report"):
                caller.send(BODY, headers={} if task is None else {"x-task": task})
                assert (await caller.answer()).status == 200
            assert [one.headers.get("x-task") for one in seen] == ["report", "report", "other", None, "report"]
            # Equal heads cost nothing: the very same dict.
            assert seen[0].headers is seen[1].headers
            assert booked(w) == {"report": 3, "rest": 2}

    run(test)


def test_a_key_may_ask_for_the_classes_it_lists() -> None:
    async def test() -> None:
        async with world(config=KEYED) as w, Caller(w.port) as caller:
            seen = watched(w)
            for task in ("trade-now", "trade", "trade-now"):
                caller.send(BODY, headers=DESK | asking(task))
                assert (await caller.answer()).status == 200
            assert [one.task for one in seen] == ["trade-now", "trade", "trade-now"]
            assert booked(w) == {"trade-now": 2, "trade": 1}
            for task in ("large", "default"):
                caller.send(BODY, headers=DESK | asking(task))
                answer = await caller.answer()
                assert refusal(answer) == (403, "class_not_allowed", "x-penstock-class")
                assert "may ask for trade, trade-now" in answer.error["message"]
            caller.send(BODY, headers=DESK | asking("trade-never"))
            assert refusal(await caller.answer()) == (400, "unknown_class", "x-penstock-class")
            assert len(seen) == 3

    run(test)


def test_a_key_that_lists_none_may_ask_for_none() -> None:
    async def test() -> None:
        async with world(config=KEYED) as w:
            answer = await ask(w.port, BODY, headers=LAB | asking("rest"))
            assert refusal(answer) == (403, "class_not_allowed", "x-penstock-class")
            assert "it may ask for none" in answer.error["message"]
            assert w.gateway.ledger.turned_away == {"class_not_allowed": 1}

    run(test)


def test_keys_of_the_environment_may_ask_for_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with world(config=OPEN) as w:
            mine = {"authorization": "Bearer sk-env"}
            assert (await ask(w.port, BODY, headers=mine)).status == 200
            assert refusal(await ask(w.port, BODY, headers=mine | asking("rest")))[:2] == (403, "class_not_allowed")

    monkeypatch.setenv(ENVIRONMENT, "me:sk-env")
    run(test)


def test_where_no_key_is_needed_any_class_may_be_asked_for() -> None:
    async def test() -> None:
        async with world(config=OPEN) as w:
            for task in ("trade", "default"):
                assert (await ask(w.port, BODY, headers=asking(task))).status == 200
            assert refusal(await ask(w.port, BODY, headers=asking("tarde"))) == (400, "unknown_class", "x-penstock-class")
            assert refusal(await ask(w.port, BODY, headers=asking("")))[:2] == (400, "unknown_class")
            assert booked(w) == {"trade": 1, "default": 1}

    run(test)


def test_a_keys_cap_reaches_the_core_whatever_the_caller_says_of_itself() -> None:
    async def test() -> None:
        async with world(config=KEYED) as w:
            seen = watched(w)
            large = BODY | {"metadata": {"order": {"amount": 2e6}}}
            assert (await ask(w.port, large, headers=LAB)).status == 200
            assert (await ask(w.port, large, headers=DESK)).status == 200
            assert [one.max_priority for one in seen] == [3, 5]
            assert booked(w) == {"large": 2}

    run(test)


def test_a_ladder_is_passed_on_and_a_rung_that_is_none_refused() -> None:
    async def test() -> None:
        async with world() as w:
            seen = watched(w)
            assert (await ask(w.port, BODY, headers={"x-penstock-ladder": "wait, reject"})).status == 200
            assert (await ask(w.port, BODY)).status == 200
            assert [one.ladder for one in seen] == [("wait", "reject"), None]
            assert refusal(await ask(w.port, BODY, headers={"x-penstock-ladder": "wait,,"})) == (400, "unknown_rung", "x-penstock-ladder")

    run(test)


def test_what_may_be_asked_of_the_cache_is_one_word() -> None:
    async def test() -> None:
        async with world() as w:
            assert (await ask(w.port, BODY, headers={"x-penstock-cache": "sampled"})).status == 200
            got = await ask(w.port, BODY, headers={"x-penstock-cache": "no-store"})
            assert refusal(got) == (400, "invalid_value", "x-penstock-cache")

    run(test)


def test_the_journal_holds_what_rules_read_and_replays_to_the_same_actions(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(config=KEYED, journal=tmp_path) as w:
            body = BODY | {"metadata": {"order": {"amount": "7"}, "private": "canary-metadata"}}
            headers = DESK | {"x-task": "report", "cookie": "canary-cookie", "x-other": "canary-header"}
            assert (await ask(w.port, body, headers=headers)).status == 200

    run(test)
    (data,) = [path.read_bytes() for path in tmp_path.iterdir()]
    for secret in (b"canary", b"sk-desk", b"authorization"):
        assert secret not in data
    _, records, _ = read(data, "")
    arrived = [record.event.request for record in records if isinstance(record.event, Arrived)]
    assert [(one.headers, one.metadata) for one in arrived] == [({"x-task": "report"}, {"order.amount": "7"})]
    assert replay(tmp_path).difference is None


# --- the form by itself


def test_a_head_that_asks_nothing_costs_no_object() -> None:
    assert Form(()).read({"host": "x", "x-task": "y"}, LOCAL) is NOTHING


def test_rungs_are_named_once_each() -> None:
    assert rungs(" cache ,reject") == ("cache", "reject")
    assert rungs(",".join(Rung)) == tuple(Rung)
    for text, code in (("", "unknown_rung"), ("WAIT", "unknown_rung"), ("wait,wait", "invalid_value")):
        with pytest.raises(CallError) as caught:
            rungs(text)
        assert (caught.value.status, caught.value.code) == (400, code)


def test_an_error_lists_only_what_may_be_asked_and_not_without_end() -> None:
    form = Form(tuple(Class(name=f"c{index}") for index in range(40)))
    with pytest.raises(CallError, match=r"it may ask for c0, .*c15, and others\."):
        form.read({"x-penstock-class": "x" * 500}, LOCAL)
    with pytest.raises(CallError, match=r"it may ask for c7\."):
        form.read({"x-penstock-class": "c8"}, Tenant("t", 0, classes=("c7",)))


@pytest.mark.parametrize(
    ("said", "retry"), [("0", 0), ("2", 2), ("99", 99), ("100", -1), ("-1", -1), ("", -1), ("two", -1), ("\u0662", -1), (None, -1)]
)
def test_number_of_the_try_is_a_small_number_or_nothing(said: str | None, retry: int) -> None:
    headers = {"host": "x"} if said is None else {"host": "x", "x-stainless-retry-count": said}
    assert Form(()).read(headers, LOCAL).retry == retry
