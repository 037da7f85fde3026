"""Nesting depth against a plain reference, by both ways of finding it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire import depth


def reference(value: Any) -> int:
    """Levels of containers that hold something."""
    if isinstance(value, dict | list) and value:
        return 1 + max(map(reference, value.values() if isinstance(value, dict) else value))
    return 0


texts = st.text(alphabet='[]{}"\\,:\n \u00e9a', max_size=6)
trees = st.recursive(
    st.none() | st.integers(0, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=25,
)


@given(trees, st.integers(0, 8), st.sampled_from([None, 1]), st.booleans())
def test_depth_is_found_as_by_walking_the_tree(tree: Any, limit: int, indent: int | None, ascii: bool) -> None:
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii).encode()
    expected = reference(tree) > limit
    assert depth.deeper(text, limit) is expected
    assert depth._scans_past(text, limit) is expected
    assert depth._indents_past(text, limit) is expected


@given(trees, st.integers(0, 30))
def test_depth_of_a_chain_around_a_tree_is_the_sum(tree: Any, levels: int) -> None:
    text = b'{"k": [' * levels + json.dumps(tree).encode() + b"]}" * levels
    deepest = 2 * levels + reference(tree)
    assert depth.deeper(text, deepest) is False
    if deepest:
        assert depth.deeper(text, deepest - 1) is True


@pytest.mark.parametrize("wide", [b"[1],", b'{"a":"]["},', b"[[[[]]]],"])
def test_wide_text_takes_the_bounded_way(wide: bytes) -> None:
    text = b"[" + wide * 20_000 + b"1]"
    assert depth.deeper(text, 64) is False
    assert depth.deeper(text[:-2] + b"[" * 64 + b"1" + b"]" * 65, 64) is True


@pytest.mark.parametrize("wide", [b'["","",""],', b"[],"])
def test_thicket_is_refused_unread(wide: bytes) -> None:
    assert depth.deeper(b"[" + wide * 50_000 + b"1]", 64) is (wide != b"[],")
    assert depth.deeper(b"[" + wide * 100_000 + b"1]", 64) is True


def test_text_deeper_than_the_interpreter_can_go_is_deeper() -> None:
    assert depth._indents_past(b"[" * 5_000 + b"]" * 5_000, 64) is True
