"""Rules in order; the first that matches names the class."""

from __future__ import annotations

from math import inf

from tests.playbook import call

from penstock.config import Class, Range, When
from penstock.core.classify import DEFAULT, Classifier


def name(rules: tuple[Class, ...], **facts: object) -> str:
    return Classifier(rules)(call(1, **facts)).name  # type: ignore[arg-type]


def test_first_matching_rule_wins() -> None:
    rules = (Class(name="x", when=When(model="r1*")), Class(name="y", when=When(tenant="t")), Class(name="z"))
    assert [name(rules, model="r1-large"), name(rules, tenant="t"), name(rules)] == ["x", "y", "z"]


def test_every_condition_of_a_rule_must_hold() -> None:
    rules = (Class(name="x", when=When(route="chat", stream=False, prompt_tokens=Range(ge=10, lt=20))),)
    assert name(rules, stream=False, tokens=10) == "x"
    assert name(rules, stream=True, tokens=10) == "default"
    assert name(rules, stream=False, tokens=20) == "default"
    assert name(rules, stream=False, tokens=10, route="embeddings") == "default"


def test_ranges_are_open_or_closed_as_written() -> None:
    rules = (Class(name="x", when=When(prompt_tokens=Range(gt=10, le=20))),)
    assert [name(rules, tokens=tokens) for tokens in (10, 11, 20, 21)] == ["default", "x", "x", "default"]


def test_without_rules_everything_is_default() -> None:
    assert Classifier(())(call(1)) is DEFAULT


def test_numbers_are_seconds_and_absent_bounds_infinite() -> None:
    task = Classifier((Class(name="x", ttft_ms=500, ttft_ms_per_1k=250, tpot_ms=100),))(call(1))
    assert (task.ttft_s, task.ttft_s_per_token, task.tpot_s, task.total_s) == (0.5, 0.00025, 0.1, inf)
    assert Classifier((Class(name="x", total_ms=3_000),))(call(1)).total_s == 3.0
