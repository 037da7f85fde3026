"""`penstock replay`: a journal through the core again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def replay(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `penstock gateway --journal DIR` wrote.")],
) -> None:
    """Feed a journal through the core and report the first decision that differs; exit 0 when none does."""
    from penstock.gateway.replay import replay as run

    result = run(folder)
    for name, torn in result.torn.items():
        print(f"{name}: the last record was cut short when the process ended; its {torn} bytes are left out")
    found = result.difference
    if found is None:
        print(f"{result.events} events, {result.actions} actions: identical")
        return
    print(f"{found.file}: event {found.index} differs")
    print(f"  event     {found.event}\n  expected  {found.expected}\n  got       {found.got}")
    raise typer.Exit(1)
