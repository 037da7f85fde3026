"""The short forms of a task class, and the JSON Schema that accepts them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Range, When
from penstock.errors import ConfigError
from penstock.gateway import settings
from penstock.gateway.document import parse
from penstock.gateway.schema import schema


def when(text: str) -> When:
    return settings.read(f"classes: [{{name: a, when: {{{text}}}}}]", {}).classes[0].when


def line_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.read(text, {}, file="f")
    return str(caught.value)


def test_dotted_keys_are_one_field_each() -> None:
    assert when("metadata.amount: {gt: 1000000}, header.x-task: trade*") == When(
        metadata={"amount": Range(gt=1_000_000)}, header={"x-task": "trade*"}
    )
    assert when("metadata.order.amount: 5, metadata: {side: buy}") == When(metadata={"order.amount": 5.0, "side": "buy"})
    assert when("metadata.urgent: true") == When(metadata={"urgent": "true"})


def test_timeout_stands_for_the_keys_of_the_class() -> None:
    text = "classes: [{name: a, timeout: {ttft_ms: 500, ttft_ms_per_1k: 20, total_ms: 9000}}, {name: b, timeout: none}]\nkeys: [%s]"
    digest = "0" * 64
    one, two = settings.read(text % f"{{name: k, sha256: '{digest}', classes: [b]}}", {}).classes
    assert (one.ttft_ms, one.ttft_ms_per_1k, one.total_ms, one.timeout) == (500, 20, 9000, None)
    assert (two.ttft_ms, two.timeout) == (None, "none")


WHEN = "classes:\n- name: a\n  when:\n    stream: true\n    "
TIMEOUT = "classes:\n- name: a\n  timeout:"
EXPECTED = "classes[0].timeout: expected none, or a mapping of ttft_ms, ttft_ms_per_1k and total_ms"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WHEN + "metadata.n: {gtt: 1}", "f:5: classes[0].when.metadata.n.gtt: unknown key; did you mean 'gt'?"),
        (WHEN + "metadata.o.n: {gt: x}", 'f:5: classes[0].when.metadata.o.n.gt: expected a number, got "x"'),
        (WHEN + "header.x: [1]", "f:5: classes[0].when.header.x: expected a number or text or a mapping, got a list"),
        (WHEN + "header.x:", "f:5: classes[0].when.header.x: expected a number or text or a mapping, got nothing"),
        (WHEN + "metadata: {n: 1}\n    metadata.n: 2", "f:6: classes[0].when.metadata.n: given here, and inside metadata: keep one"),
        (WHEN + "metadata: 5\n    metadata.n: 2", "f:5: classes[0].when.metadata: expected a mapping, as dotted keys stand beside it"),
        (WHEN + "metadta.n: 2", "f:5: classes[0].when.metadta.n: unknown key; did you mean 'metadata'?"),
        (TIMEOUT + " 500", "f:3: " + EXPECTED),
        (TIMEOUT + " null", f"f:3: {EXPECTED}; for no deadline write the word: timeout: none"),
        (TIMEOUT, f"f:3: {EXPECTED}; for no deadline write the word: timeout: none"),
        (TIMEOUT + " never", "f:3: " + EXPECTED),
        (TIMEOUT + " {}", f"f:3: {EXPECTED}; it is empty"),
        (TIMEOUT + "\n    ttft: 5", "f:4: classes[0].timeout.ttft: unknown key; known here: ttft_ms, ttft_ms_per_1k, total_ms"),
        (TIMEOUT + " {ttft_ms: 5}\n  ttft_ms: 5", "f:3: classes[0].timeout.ttft_ms: given here, and as ttft_ms of the class: keep one"),
        (TIMEOUT + "\n    ttft_ms: -5", "f:4: classes[0].ttft_ms: expected a number > 0.0, got -5"),
        # A mapping's entry is named though the types do not say which it was.
        ("prices:\n  m: {}\n  n: {input_1m: 1}", "f:3: prices.n.input_1m: unknown key; did you mean 'input_per_1m'?"),
    ],
)
def test_an_error_names_the_line_of_the_short_form(text: str, message: str) -> None:
    assert message in line_of(text)


KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,),
    "integer": (int,), "number": (int, float), "null": (type(None),),
}  # fmt: skip


def valid(value: Any, rule: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """As much of JSON Schema as `schema()` uses."""
    if "$ref" in rule:
        return valid(value, definitions[rule["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in rule:
        return any(valid(value, one, definitions) for one in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    if not isinstance(value, KINDS[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean"):
        return False
    if isinstance(value, dict):
        return len(value) >= rule.get("minProperties", 0) and all(valid_entry(name, value[name], rule, definitions) for name in value)
    if isinstance(value, list):
        return all(valid(one, rule["items"], definitions) for one in value)
    if isinstance(value, int | float):
        return bool(rule.get("minimum", value) <= value <= rule.get("maximum", value) and value > rule.get("exclusiveMinimum", value - 1))
    return not isinstance(value, str) or re.search(rule.get("pattern", ""), value) is not None


def valid_entry(name: str, value: Any, rule: dict[str, Any], definitions: dict[str, Any]) -> bool:
    rules = [rule["properties"][name]] if name in rule.get("properties", {}) else []
    rules += [one for pattern, one in rule.get("patternProperties", {}).items() if re.search(pattern, name)]
    more = rule.get("additionalProperties", True)
    if not rules:
        return more is True or (more is not False and valid(value, more, definitions))
    return all(valid(value, one, definitions) for one in rules)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("classes: [{name: a, when: {metadata.amount: {gt: 1000000}, header.x-task: trade*, metadata.n: 5, metadata.b: true}}]", True),
        ("classes: [{name: a, when: {metadata: {amount: {gt: 1}, b: false}}, timeout: none}]", True),
        ("classes: [{name: a, timeout: {ttft_ms: 5, ttft_ms_per_1k: 3}, ladder: [wait, reject]}]", True),
        ("classes: [{name: a, when: {metadata.amount: {min: 1}}}]", False),
        ("classes: [{name: a, when: {metadata.amount: [1]}}]", False),
        ("classes: [{name: a, when: {metadta.amount: 1}}]", False),
        ("classes: [{name: a, timeout: null}]", False),
        ("classes: [{name: a, timeout: {}}]", False),
        ("classes: [{name: a, timeout: {tpot_ms: 5}}]", False),
        ("classes: [{name: a, timeout: never}]", False),
        ("classes: [{name: a, ladder: [wiat]}]", False),
    ],
)
def test_the_json_schema_says_the_same_as_the_loader(text: str, good: bool) -> None:
    described = schema()
    assert valid(parse(text).values, {"$ref": described["$ref"]}, described["$defs"]) is good
    if good:
        settings.read(text, {})
    else:
        line_of(text)


WORDS = st.sampled_from(["metadata", "header", "metadata.n", "header.x", "metadata.", "gt", "le", "ttft_ms", "total_ms", "none", "m", ""])
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_whatever_a_class_holds_it_is_a_config_or_one_line(when: Any, timeout: Any, ladder: Any, prices: Any) -> None:
    one = {"name": "a", "when": when, "timeout": timeout, "ladder": ladder}
    for values in ({"classes": [one]}, {"classes": [{"name": "a", "when": when}], "prices": prices, "smaller": prices}):
        text = json.dumps(values)
        try:
            settings.read(text, {}, file="f")
        except ConfigError as error:
            assert "\n" not in str(error)
            assert error.line == 1
