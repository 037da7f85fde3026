"""`penstock export`: files for other tools, generated from what Penstock knows of itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class What(StrEnum):
    """What can be exported."""

    SCHEMA = "schema"


def export(what: Annotated[What, typer.Argument(help="`schema`: the configuration's JSON Schema, for editors.")]) -> None:
    """Print a file for another tool: the configuration's JSON Schema."""
    import msgspec

    from penstock.gateway.schema import schema

    print(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode())
