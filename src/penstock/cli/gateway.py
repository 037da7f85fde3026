"""`penstock gateway`: the data plane alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gateway(
    config: Annotated[Path, typer.Option(help="Configuration in YAML.", metavar="FILE")],
    journal: Annotated[
        Path | None, typer.Option(help="Folder for a journal of every decision, for `penstock replay`.", metavar="DIR")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of the API.  [default: the configuration's]", show_default=False)
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of metrics and admin.  [default: the configuration's]", show_default=False)
    ] = None,
) -> None:
    """Run the gateway in front of the configured nodes, until Ctrl-C or SIGTERM."""
    import msgspec

    from penstock.gateway import settings
    from penstock.gateway.run import run

    wanted = settings.load(config)
    if port is not None:
        wanted = msgspec.structs.replace(wanted, listen=msgspec.structs.replace(wanted.listen, port=port))
    if admin_port is not None:
        wanted = msgspec.structs.replace(wanted, admin=msgspec.structs.replace(wanted.admin, port=admin_port))
    run(wanted, journal)
