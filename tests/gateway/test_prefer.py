"""RFC 7240, as far as it matters here."""

from __future__ import annotations

import pytest

from penstock.gateway.prefer import wants_ticket


@pytest.mark.parametrize("prefer", ["respond-async", "RESPOND-ASYNC", "wait=5, respond-async", "respond-async;a=b", " respond-async ,x"])
def test_who_asks_for_it_is_understood(prefer: str) -> None:
    assert wants_ticket(prefer)


@pytest.mark.parametrize("prefer", ["", "respond-asynchronously", "x=respond-async", "wait=5", ";respond-async", "return=minimal"])
def test_who_does_not_gets_none(prefer: str) -> None:
    assert not wants_ticket(prefer)
