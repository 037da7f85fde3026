"""The `penstock` command: one file a command, whose module imports nothing heavy until the command runs."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from penstock import __version__
from penstock.build import BUILD
from penstock.errors import PenstockError
from penstock.supervisor import leash

# In the order a person meets them: try it, set it up, run it, load it, look into it.
COMMANDS = {
    "up": "Start a gateway, and engines to try it with, on this machine.",
    "check": "Check a configuration and say in words what it means.",
    "export": "Print files for other tools, such as the JSON Schema.",
    "gateway": "Serve the API before your engines.",
    "engine": "Serve modelled engines: real protocol and timing, no GPU.",
    "bench": "Load a server and measure what its callers see.",
    "simulate": "Run the scheduler over a trace, beside other routers.",
    "replay": "Feed a gateway's journal through the scheduler again.",
}

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


def _print_version(asked: bool) -> None:
    if asked:
        print(f"penstock {__version__} ({BUILD})")
        raise typer.Exit


@app.callback()
def penstock(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Flow control for LLM engines: a gateway that stays useful under overload."""


for _name, _help in COMMANDS.items():
    app.command(_name, short_help=_help)(getattr(import_module(f"penstock.cli.{_name}"), _name))


def main() -> None:
    """Entry point. What a person got wrong is one line on stderr and exit code 2; never a traceback."""
    leash.fasten()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="penstock", standalone_mode=False))
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "penstock")
        _refuse(f"{error.format_message()} (see {command} --help)", error.exit_code)
    except PenstockError as error:
        _refuse(str(error), 2)


def _refuse(message: str, code: int) -> NoReturn:
    print(f"penstock: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
