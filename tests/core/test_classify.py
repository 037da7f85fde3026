"""Rules in order; the first that matches names the class."""

from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call

from penstock.config import Class, Range, Rung, When
from penstock.core.classify import DEFAULT, Classifier, Finding


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


def test_a_class_that_was_asked_for_is_given_without_asking_the_rules() -> None:
    rules = (Class(name="x"), Class(name="y", when=When(tenant="t")))
    assert [name(rules, task=task) for task in ("y", "x", "default", "")] == ["y", "x", "default", "x"]


def test_a_class_that_is_gone_leaves_it_to_the_rules() -> None:
    assert name((Class(name="x"),), task="gone") == "x"


def test_what_a_class_gives_is_kept() -> None:
    rule = Class(name="x", value=5.0, floor=0.1, ladder=(Rung.CACHE, Rung.REJECT), timeout="none")
    task = Classifier((rule,))(call(1))
    assert (task.value, task.floor, task.ladder, task.patient) == (5.0, 0.1, ("cache", "reject"), True)
    assert (DEFAULT.value, DEFAULT.floor, DEFAULT.ladder, DEFAULT.patient) == (1.0, 0.0, (), False)


def test_the_first_token_is_due_later_for_a_longer_prompt() -> None:
    task = Classifier((Class(name="x", ttft_ms=500, ttft_ms_per_1k=250),))(call(1))
    assert task.first_s(4_000) == 1.5


def test_an_explanation_ends_with_the_rule_that_matches() -> None:
    rules = (Class(name="x", when=When(metadata={"amount": Range(gt=5)})), Class(name="y", when=When(stream=True)), Class(name="z"))
    task, steps = Classifier(rules).explain(call(1, metadata={"amount": "5"}))
    assert (task.name, [(step.task.name, step.matched) for step in steps]) == ("y", [("x", False), ("y", True)])
    assert steps[0].findings == (Finding("metadata.amount", "> 5", "5", False),)
    assert Classifier(rules).explain(call(1, task="z"))[1] == []


TEXTS = st.sampled_from(["", "a", "ab", "5", "5.0", "-1", "1e3", "nan", "*"])
BOUND = st.sampled_from([None, -1.0, 0.0, 5.0, 1_000.0])
TESTS = (
    TEXTS | st.sampled_from(["a*", "?", "[a-b]"]) | st.sampled_from([5.0, -1.0]) | st.builds(Range, gt=BOUND, ge=BOUND, lt=BOUND, le=BOUND)
)
NAMES = st.sampled_from(["x", "y"])
RULES = st.lists(
    st.builds(
        When,
        model=st.none() | st.sampled_from(["m", "m*", "n"]),
        route=st.none() | st.sampled_from(["chat", "c*"]),
        tenant=st.none() | TEXTS,
        stream=st.none() | st.booleans(),
        prompt_tokens=st.none() | st.builds(Range, gt=BOUND, le=BOUND),
        header=st.dictionaries(NAMES, TESTS, max_size=2),
        metadata=st.dictionaries(NAMES, TESTS, max_size=2),
    ),
    max_size=5,
)
FACTS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "mm", "n"]),
        "tokens": st.integers(1, 2_000),
        "stream": st.booleans(),
        "tenant": TEXTS,
        "task": st.sampled_from(["", "", "", "c1", "default", "gone"]),
        "headers": st.dictionaries(NAMES, TEXTS),
        "metadata": st.dictionaries(NAMES, TEXTS),
    }
)


@given(RULES, FACTS)
def test_what_is_explained_is_what_happens(whens: list[When], facts: dict[str, Any]) -> None:
    classify = Classifier(tuple(Class(name=f"c{index}", when=when) for index, when in enumerate(whens)))
    request = call(1, **facts)
    task, steps = classify.explain(request)
    assert task is classify(request)
    assert [step.matched for step in steps[:-1]] == [False] * len(steps[:-1])
    assert not steps or steps[-1].matched or task is DEFAULT
