"""A task matrix that cannot work is refused with its key and line."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from tests.core.test_classify import FACTS, RULES
from tests.playbook import call

from penstock.config import Class, Config, Range, When
from penstock.core.condition import conditions
from penstock.errors import ConfigError
from penstock.gateway import matrix, settings

KEY = "keys: [{name: k, sha256: %s, classes: [%%s]}]\n" % hashlib.sha256(b"x").hexdigest()


def line_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.read(text, {}, file="f")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Conditions.
        ("classes:\n- name: a\n  when:\n    metadata.n: {}", "f:4: classes[0].when.metadata.n: give gt, ge, lt or le"),
        ("classes:\n- name: a\n  when:\n    header:\n      x: {gt: 2, lt: 1}", "f:5: classes[0].when.header.x: no number is in this range"),
        ("classes: [{name: a, when: {metadata.o..n: 1}}]", "classes[0].when.metadata.o..n: expected a field's name"),
        ("classes: [{name: a, when: {metadata: {'': 1}}}]", "expected a field's name"),
        ("classes:\n- name: a\n  when: {header.Authorization: x}", "f:3: classes[0].when.header.Authorization: no rule may look at"),
        ("classes: [{name: a, when: {header.cookie: x}}]", "header that holds credentials"),
        ("classes: [{name: a, when: {header.X-API-Key: x}}]", "header that holds credentials"),
        ("classes: [{name: a, when: {header.proxy-authorization: x}}]", "header that holds credentials"),
        ("classes: [{name: a, when: {header.content-length: 1}}]", "use prompt_tokens for its size"),
        ("classes: [{name: a, when: {header.a b: x}}]", "expected a header's name"),
        ("classes: [{name: a, when: {header: {x: 1, X: 2}}}]", "classes[0].when.header.X: the same header as x"),
        # Times.
        ("classes:\n- name: a\n  timeout: none\n  total_ms: 5", "f:4: classes[0].total_ms: a class with timeout: none has no deadline"),
        ("classes: [{name: a, timeout: none, ttft_ms: 5}]", "classes[0].ttft_ms: a class with timeout: none has no deadline"),
        # Rules that are never reached.
        ("classes: [{name: a, when: {tenant: t*}}, {name: b, when: {tenant: t1}}]", "never reached: classes[0] (a) matches all of it"),
        ("classes: [{name: a, when: {stream: true}}, {name: b}, {name: c}]", "never reached: classes[1] (b) matches everything"),
        (
            "classes: [{name: a, when: {metadata.n: {gt: 5}}}, {name: b, when: {metadata.n: {ge: 6, lt: 9}, route: chat}}]",
            "classes[1]: never reached: classes[0] (a)",
        ),
        ("classes: [{name: a, when: {header.x: '*'}}, {name: b, when: {header.X: 5}}]", "classes[1]: never reached"),
        # Ladders, floors, keys, smaller models.
        ("classes:\n- name: a\n  ladder:\n  - wait\n  - wait", "f:5: classes[0].ladder[1]: wait stands here twice"),
        ("ladder: [wait, reject, cache]", "f:1: ladder[1]: nothing can be tried after reject: put it last"),
        ("ladder: [wiat]", "f:1: ladder[0]: expected one of wait, sibling, cache, smaller, ticket, reject, got \"wiat\""),
        (
            "classes: [{name: a, when: {tenant: a}, floor: 0.6}, {name: b, floor: 0.5}]",
            "classes[1].floor: the floors of the classes up to here come to 1.1",
        ),
        (KEY % "b*" + "classes: [{name: a}]", "keys[0].classes[0]: no class is named 'b*'; there are a, default"),
        ("smaller: {a: b, b: a}", "smaller.a: goes round in a circle: a -> b -> a"),
        ("smaller: {a: a}", "smaller.a: goes round in a circle: a -> a"),
        ("aliases: {x: y}\nsmaller: {y: x}", "f:2: smaller.y: 'x' is an alias; name the engine's model, 'y'"),
        ("nodes: [{name: a, url: 'http://a', models: [m]}]\nsmaller:\n  m: n", "f:3: smaller.m: no node serves 'n'; they serve m"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_where_it_stands(text: str, message: str) -> None:
    assert message in line_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "classes: [{name: a, floor: 0.1, when: {tenant: a}}, {name: b, floor: 0.2, when: {tenant: b}}, {name: c, floor: 0.7}]",
        "classes: [{name: a, when: {metadata.n: {gt: 5}}}, {name: b, when: {metadata.n: {ge: 5}}}]",
        "classes: [{name: a, when: {metadata.n: 5}}, {name: b, when: {metadata.n: '5'}}]",
        "smaller: {a: b, b: c}",
        "ladder: [wait]",
        "classes: [{name: a, timeout: none, tpot_ms: 50}]",
        KEY % "'*'" + "classes: [{name: a}]",
    ],
)
def test_what_can_work_is_not_refused(text: str) -> None:
    settings.read(text, {})


def test_a_class_that_can_be_asked_for_need_not_be_reached_by_rules() -> None:
    text = "classes: [{name: a}, {name: b}, {name: c}]"
    assert settings.read(KEY % "b, c" + text, {}).classes[1].name == "b"
    assert "classes[2]: never reached" in line_of(KEY % "b" + text)


@given(RULES, FACTS)
def test_a_rule_that_is_called_unreachable_is_never_the_first_to_match(whens: list[When], facts: dict[str, object]) -> None:
    request = call(1, **facts)  # type: ignore[arg-type]
    matches = [all(condition.holds(request) for condition in conditions(when)) for when in whens]
    for place, wide in enumerate(whens):
        for narrow, met in zip(whens[place:], matches[place:], strict=True):
            if matrix.covers(wide, narrow):
                assert matches[place] or not met


def test_the_bounds_of_ranges_are_compared_with_their_ends() -> None:
    assert matrix.covers(When(prompt_tokens=Range(ge=5)), When(prompt_tokens=Range(gt=5)))
    assert not matrix.covers(When(prompt_tokens=Range(gt=5)), When(prompt_tokens=Range(ge=5)))
    assert not matrix.covers(When(prompt_tokens=Range(lt=5)), When(prompt_tokens=Range(le=5)))
    assert matrix.covers(When(metadata={"n": Range(le=5)}), When(metadata={"n": 5.0}))


def test_an_empty_matrix_is_good() -> None:
    matrix.check(Config())
    matrix.check(Config(classes=(Class(name="a"),)))
