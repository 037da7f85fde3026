"""The builds of the gateway that are measured side by side: the sources as they are, and compiled, once `make compiled` has made that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.process import SOURCES

ROOT = SOURCES.parent
COMPILED = ROOT / ".venv-compiled" / "bin" / "python"


class Build(NamedTuple):
    name: str
    python: str
    path: str
    """Where it finds the package, if not among what is installed."""

    @property
    def command(self) -> tuple[str, ...]:
        return self.python, "-m", "penstock"

    def environment(self, *more: Path) -> dict[str, str]:
        return {"PYTHONPATH": ":".join((*filter(None, (self.path,)), *map(str, more)))}


def builds() -> list[Build]:
    pure = Build("penstock", sys.executable, str(SOURCES))
    return [pure, Build("penstock compiled", str(COMPILED), "")] if COMPILED.exists() else [pure]
