"""A Reject in the words callers get."""

from __future__ import annotations

import msgspec
import pytest

from penstock.events import Reject
from penstock.facts import Failure, Outcome
from penstock.gateway.refusal import REASONS, Refusal

WHY = (0.25, 1.5, 2.0, 7.0)


def _headers(refusal: Refusal) -> dict[str, str]:
    lines = refusal.headers().decode().removesuffix("\r\n").split("\r\n")
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


@pytest.mark.parametrize("outcome", REASONS)
def test_every_refusal_says_why_and_when(outcome: Outcome) -> None:
    refusal = Refusal(Reject(1, outcome, 2.3001, WHY))
    headers, error = _headers(refusal), msgspec.json.decode(refusal.body())["error"]
    assert refusal.status == 503
    assert (headers["retry-after"], headers["retry-after-ms"], headers["x-should-retry"]) == ("3", "2301", "true")
    assert (error["code"], error["type"], error["retry_after_ms"]) == (outcome, "server_error", 2301)
    assert error["eta_ms"] == 3801
    assert error["reason"] == REASONS[outcome]
    assert "7 requests wait" in error["message"]
    assert refusal.queued_ms == 250


def test_only_an_answer_that_broke_the_protocol_is_a_bad_gateway() -> None:
    for failure in Failure:
        refusal = Refusal(Reject(1, Outcome.FAILED, 1.0), failure)
        assert refusal.status == (502 if failure is Failure.PROTOCOL else 503)
        assert f"({failure})" in msgspec.json.decode(refusal.body())["error"]["reason"]


def test_clients_are_not_sent_to_wait_longer_than_they_would() -> None:
    assert _headers(Refusal(Reject(1, Outcome.EXPIRED, 120.0)))["x-should-retry"] == "true"
    assert _headers(Refusal(Reject(1, Outcome.EXPIRED, 121.0)))["x-should-retry"] == "false"


def test_in_a_stream_it_is_an_event_that_clients_raise_on() -> None:
    event = Refusal(Reject(1, Outcome.EXPIRED, 1.5, WHY)).event()
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    error = msgspec.json.decode(event[6:])["error"]
    assert (error["code"], error["retry_after_ms"]) == ("expired", 1500)


def test_what_may_not_wait_is_not_told_that_a_queue_is_full() -> None:
    error = msgspec.json.decode(Refusal(Reject(1, Outcome.REFUSED_FULL, 0.5)).body())["error"]
    assert error["reason"] == "no engine is free, and it may not wait: its ladder has no such rung, or the queue is full"


def test_a_reject_without_numbers_is_still_whole() -> None:
    error = msgspec.json.decode(Refusal(Reject(1, Outcome.UNAVAILABLE, 0.5)).body())["error"]
    assert (error["retry_after_ms"], error["eta_ms"]) == (500, 500)
    assert "wait" not in error["message"]
