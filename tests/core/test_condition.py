"""What a rule asks of a request, and what it says it saw."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call

from penstock.config import Class, Pool, PoolWhen, Range, When
from penstock.core.condition import conditions, exact, headers_read, metadata_read, number, words


def holds(when: When, **facts: object) -> bool:
    return all(condition.holds(call(1, **facts)) for condition in conditions(when))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-5", -5), ("+5", 5), ("007", 7), ("5.", 5), (".5", 0.5), ("1e3", 1000), ("1E-3", 0.001), ("0", 0), ("-0.0", 0)],
)
def test_decimal_numbers_are_read(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["1" * 1_000_000 + "x", "1" * 500_000 + "." + "1" * 500_000 + "x", "1e" + "1" * 1_000_000 + "x"])
def test_a_long_text_that_is_nearly_a_number_costs_no_more_than_reading_it(text: str) -> None:
    began = time.process_time()
    assert number(text) is None
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "text",
    ["", " ", " 5", "5 ", "5\n", "nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400", "0x10", "1_000", "1,000", "١٢", "５",
     "1e", ".", "--5", "5d", "true", "9" * 400],
)  # fmt: skip
def test_everything_else_is_no_number_and_meets_no_range(text: str) -> None:
    assert number(text) is None
    assert not holds(When(metadata={"a": Range(ge=-math.inf)}), metadata={"a": text})
    assert not holds(When(metadata={"a": 5.0}), metadata={"a": text})


@given(st.text(max_size=40))
def test_no_text_is_read_as_more_than_a_finite_number(text: str) -> None:
    value = number(text)
    assert value is None or math.isfinite(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_back(value: float) -> None:
    assert number(repr(value)) == value == float(exact(value))


def test_metadata_is_compared_as_a_number_where_the_test_is_numeric() -> None:
    large = When(metadata={"amount": Range(gt=1_000_000)})
    assert [holds(large, metadata={"amount": text}) for text in ("1000000", "1000000.01", "2e6", "999999999999999999999")] == [
        False, True, True, True,
    ]  # fmt: skip
    assert holds(When(metadata={"a": 5.0}), metadata={"a": "5.00"})
    # As text they differ.
    assert not holds(When(metadata={"a": "5"}), metadata={"a": "5.00"})


def test_a_field_that_is_absent_meets_nothing() -> None:
    for test in ("*", 0.0, Range(le=0)):
        assert not holds(When(metadata={"a": test}))
        assert not holds(When(header={"a": test}))
    assert holds(When(metadata={"a": "*"}), metadata={"a": ""})


def test_headers_are_named_without_regard_to_capitals_and_valued_with() -> None:
    rule = When(header={"X-Task": "trade*"})
    assert holds(rule, headers={"x-task": "trade-1"})
    assert not holds(rule, headers={"x-task": "Trade-1"})


def test_a_condition_says_what_it_wants_and_what_it_saw() -> None:
    when = When(model="r*", stream=True, prompt_tokens=Range(gt=1, le=2), header={"X-A": 1.5}, metadata={"o.n": "x"})
    told = [(one.of, one.wants, one.seen(call(1, model="r1", tokens=7, metadata={"o.n": "y"}))) for one in conditions(when)]
    assert told == [
        ("model", "r*", "r1"),
        ("stream", "true", "true"),
        ("prompt_tokens", "> 1 and <= 2", "7"),
        ("header.x-a", "= 1.5", None),
        ("metadata.o.n", "x", "y"),
    ]


def test_numbers_are_written_as_people_do() -> None:
    assert words(Range(ge=1_234_567, lt=0.5)) == ">= 1234567 and < 0.5"
    assert exact(1e300) == "1e+300"


def test_names_that_rules_read_are_known() -> None:
    rules = (Class(name="a", when=When(header={"X-A": "1"}, metadata={"m": "1"})), Class(name="b", when=When(header={"x-a": "2"})))
    assert headers_read(rules) == {"x-a"}
    assert metadata_read(rules) == {"m"}


def test_a_session_must_be_named_to_meet_any_test() -> None:
    assert [holds(When(session=test), session="chat-7") for test in ("*", "chat-*", "chat-7", "other")] == [True, True, True, False]
    assert not holds(When(session="*"))


@pytest.mark.parametrize(("difficulty", "fits"), [(0.0, False), (0.49, False), (0.5, True), (1.0, True)])
def test_difficulty_is_compared_as_a_number(difficulty: float, fits: bool) -> None:
    assert holds(When(difficulty=Range(ge=0.5)), difficulty=difficulty) is fits
    [condition] = conditions(When(difficulty=Range(ge=0.5)))
    assert (condition.wants, condition.seen(call(1, difficulty=0.75))) == (">= 0.5", "0.75")


def test_pools_rules_count_and_a_rule_on_difficulty_reads_what_callers_say_of_it() -> None:
    rules = (
        Class(name="a", when=When(header={"X-A": "*"})),
        Pool(name="b", nodes=("n",), when=PoolWhen(header={"X-B": "*"}, difficulty=Range(ge=0.5), metadata={"m": "*"})),
    )
    assert headers_read(rules) == {"x-a", "x-b"}
    assert metadata_read(rules) == {"m", "difficulty"}
