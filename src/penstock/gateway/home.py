"""Where a gateway's store is: the file that is configured, or one of its own by its address."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from penstock.config import Config
from penstock.errors import ConfigError
from penstock.gateway.store import MEMORY


def place(config: Config, environment: Mapping[str, str] = os.environ) -> str:
    """Of a gateway on any free port, which cannot be found again by its address, the store lives no longer than it does."""
    if config.tickets.path is not None:
        return str(Path(config.tickets.path).expanduser().absolute())
    listen = config.listen
    if not listen.port:
        return MEMORY
    host = re.sub(r"[^A-Za-z0-9.-]", "_", listen.host)
    return str(_state_folder(environment) / "penstock" / f"tickets-{host}-{listen.port}.sqlite")


def _state_folder(environment: Mapping[str, str]) -> Path:
    """By the XDG Base Directory Specification; a relative one is to be ignored."""
    given = environment.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given)
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise ConfigError("neither XDG_STATE_HOME nor HOME says where tickets are kept; name a file", key="tickets.path")
    return Path(home) / ".local" / "state"
