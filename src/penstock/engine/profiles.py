"""The shipped profiles, read from the package's data file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from penstock.errors import ConfigError
from penstock.facts import Profile


@cache
def _shipped() -> dict[str, Profile]:
    data = files("penstock.engine").joinpath("profiles.json").read_bytes()
    return {profile.name: profile for profile in msgspec.json.decode(data, type=list[Profile])}


def names() -> list[str]:
    return list(_shipped())


def load(name: str) -> Profile:
    """The profile of this name. Raises ConfigError, naming those there are."""
    try:
        return _shipped()[name]
    except KeyError:
        raise ConfigError(f"no profile {name!r}; there are {', '.join(_shipped())}", key="profile") from None
