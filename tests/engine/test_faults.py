from __future__ import annotations

import pytest

from penstock.engine import faults
from penstock.errors import CallError


def test_a_counted_fault_touches_so_many_calls() -> None:
    asked = faults.read(b'{"status":500,"count":2}')
    assert [asked.take() for _ in range(4)] == [True, True, False, False]


def test_a_fault_without_a_count_stays_and_no_fault_touches_nothing() -> None:
    assert all(faults.read(b'{"stall_s":1}').take() for _ in range(5))
    assert not faults.read(b"").take()
    assert not faults.read(b'{"slow":3}').take()


@pytest.mark.parametrize("body", [b"[]", b'{"status":200}', b'{"slow":0}', b'{"count":0}', b"{"])
def test_what_is_no_fault_is_refused(body: bytes) -> None:
    with pytest.raises(CallError):
        faults.read(body)
