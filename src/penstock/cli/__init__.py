"""The `penstock` command: one file a command, whose module imports nothing heavy until the command runs."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from penstock import __version__
from penstock.errors import PenstockError
from penstock.supervisor import leash

# In the order a person meets them: try it, run it, measure it, look into it.
COMMANDS = ("up", "gateway", "engine", "check", "export", "bench", "simulate", "replay")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


def _print_version(asked: bool) -> None:
    if asked:
        print(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def penstock(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Flow control for LLM engines: a gateway that stays useful under overload."""


for _name in COMMANDS:
    if find_spec(f"penstock.cli.{_name}") is not None:
        app.command(_name)(getattr(import_module(f"penstock.cli.{_name}"), _name))


def main() -> None:
    """Entry point. What a person got wrong is one line on stderr and exit code 2; never a traceback."""
    leash.fasten()
    try:
        app()
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        sys.exit(2)
