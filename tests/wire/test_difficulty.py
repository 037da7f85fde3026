"""How hard a request is: what its caller says, else an estimate."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Limits
from penstock.wire import openai
from penstock.wire.difficulty import NAME, estimate, graded


def read(body: dict[str, object], *names: str) -> float:
    whole = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return openai.read("chat", json.dumps(whole).encode(), Limits(), 0, {}, names).difficulty


@pytest.mark.parametrize(("said", "is_"), [("0.7", 0.7), ("1", 1.0), ("7", 1.0), ("-3", 0.0), ("1e-1", 0.1)])
def test_what_the_caller_says_counts_clipped(said: str, is_: float) -> None:
    assert graded(said, 30_000, 0) == is_


@pytest.mark.parametrize("said", ["", "hard", "nan", "inf", "1_0", "0x1", "٠.٥", "0" * 33, "true"])
def test_nonsense_is_as_if_nothing_were_said(said: str) -> None:
    assert graded(said, 5_000, 100) == estimate(5_000, 100) == graded(None, 5_000, 100)


def test_the_body_says_it_as_a_number_or_as_text() -> None:
    assert read({"metadata": {"difficulty": 0.25}}, NAME) == read({"metadata": {"difficulty": "0.25"}}, NAME) == 0.25
    assert read({"metadata": {"difficulty": {"a": 1}}}, NAME) == read({}, NAME)


def test_nothing_is_worked_out_where_no_rule_asks() -> None:
    long: dict[str, object] = {"messages": [{"role": "user", "content": "long " * 10_000}]}
    assert read(long) == read(long, "other") == 0.0 < read(long, NAME)


def test_longer_prompts_longer_answers_and_tools_are_harder() -> None:
    assert estimate(10, 0) == 0.0 < estimate(1_000, 0) < estimate(10_000, 0) < estimate(40_000, 0) == 1.0
    assert estimate(1_000, 64) < estimate(1_000, 4_096)
    assert estimate(1_000, 0) < estimate(1_000, 0, tools=True)


@given(st.none() | st.text(max_size=50), st.integers(0, 10_000_000), st.integers(0, 1_000_000), st.booleans())
def test_it_is_from_0_to_1_whatever_comes(said: str | None, prompt: int, answer: int, tools: bool) -> None:
    assert 0.0 <= graded(said, prompt, answer, tools) <= 1.0
