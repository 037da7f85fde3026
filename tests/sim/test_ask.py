"""Windows as a person types them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import TraceError
from penstock.sim.arrival import Arrival, cut
from penstock.sim.traces.ask import window


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("600:1200", (600.0, 1200.0)),
        ("0.5:1.5", (0.5, 1.5)),
        (":600", (0.0, 600.0)),
        ("600:", (600.0, inf)),
        (":", (0.0, inf)),
        ("01:30:02:00", (5400.0, 7200.0)),
        (":00:10", (0.0, 600.0)),
        ("00:10:", (600.0, inf)),
        ("09:29:30:09:31:00", (34170.0, 34260.0)),
        (":00:00:30", (0.0, 30.0)),
        ("00:00:30:", (30.0, inf)),
    ],
)
def test_window_is_seconds_or_a_clock(text: str, expected: tuple[float, float]) -> None:
    assert window(text) == expected


@pytest.mark.parametrize("text", ["", "600", "a:b", "1:2:3", "-5:10", "nan:10", "inf:inf", "1:2:3:4:5", "00:00:00:00:00:00:00:01", "x:"])
def test_unclear_window_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(TraceError, match="expected START:END"):
        window(text)


@pytest.mark.parametrize("text", ["10:5", "10:10", "02:00:01:00"])
def test_window_that_ends_before_it_starts_is_refused(text: str) -> None:
    with pytest.raises(TraceError, match="ends before it starts"):
        window(text)


@given(
    st.lists(st.floats(0, 1000), max_size=30),
    st.floats(0, 500),
    st.floats(500.5, 1000),
    st.floats(0.1, 10),
    st.none() | st.integers(1, 20),
)
def test_cut_keeps_order_and_what_is_inside(times: list[float], start: float, end: float, speedup: float, limit: int | None) -> None:
    arrivals = [Arrival(at, 1, 1) for at in times]
    inside = sorted(at for at in times if start <= at < end)[:limit]
    kept = cut(arrivals, start_s=start, end_s=end, speedup=speedup, limit=limit)
    assert [arrival.at_s for arrival in kept] == [(at - start) / speedup for at in inside]
