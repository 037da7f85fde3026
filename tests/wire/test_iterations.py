"""TensorRT-LLM's list of iterations."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.facts import Signals
from penstock.wire.iterations import read


def page(**last: object) -> bytes:
    return msgspec.json.encode([{"iter": 1, "numActiveRequests": 7}, last])


def test_the_last_iteration_counts() -> None:
    cache = {"maxNumBlocks": 8, "usedNumBlocks": 2, "freeNumBlocks": 6}
    assert read(page(numActiveRequests=3, numQueuedRequests=2, kvCacheStats=cache)) == Signals(3, 2, 0.25)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"", b"[1]", b'[{"numActiveRequests": "x"}]', b"\xff", b"<html>"])
def test_anything_else_says_nothing(data: bytes) -> None:
    assert read(data) == Signals()


def test_what_cannot_be_is_unknown() -> None:
    assert read(page(numActiveRequests=-3, numQueuedRequests=1e300, kvCacheStats={"maxNumBlocks": 0, "usedNumBlocks": 5})) == Signals()
    assert read(page(numActiveRequests=1, kvCacheStats={"maxNumBlocks": 2, "usedNumBlocks": 5})) == Signals(1)
    assert read(page(numActiveRequests=1, kvCacheStats=None)) == Signals(1)


@given(st.binary(max_size=80))
def test_any_bytes_are_survived(data: bytes) -> None:
    assert read(b"[" + data).models is None
