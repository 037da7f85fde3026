"""A short storm; `make chaos` is the long one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.chaos.storm import Storm


def test_each_ticket_ends_once_though_the_gateway_is_killed(tmp_path: Path) -> None:
    storm = Storm(tmp_path, kills=3, seed=7)
    asyncio.run(storm.rage())
    assert not storm.found, storm.report()
    assert max(storm.in_flight) > 0
    assert len(storm.acknowledged) > 10
