"""A journal of what the scheduler did in a simulated overload with faults, for another build to replay: `python -m tests.builds DIR`.

`penstock replay DIR` then compares every action, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.core import Core
from penstock.events import Action, Event
from penstock.journal import MAGIC, Head, frame

SEED = 7
TENANTS = ("a", "b", "c")


class Recorder:
    """A core that writes down what it is told and what it answers."""

    def __init__(self, core: Core, path: Path, head: Head) -> None:
        self.core, self.file = core, path.open("wb")
        self.file.write(MAGIC + frame(head))

    def handle(self, event: Event, now: float) -> list[Action]:
        actions = self.core.handle(event, now)
        self.file.write(frame((now, event, actions)))
        return actions

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)
