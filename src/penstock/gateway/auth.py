"""Who calls: from an Authorization header to a tenant.

Keys are kept as SHA-256(pepper + SHA-256(key)), with a pepper made anew by each process unless one is given, so neither a memory dump's
table nor a timing tells a key. A missing, a malformed, an unknown and a revoked key all take the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address

import msgspec

from penstock.config import Config, Key
from penstock.errors import ConfigError

ENVIRONMENT = "PENSTOCK_KEYS"
"""`tenant:key,tenant:key`: keys for people who have no config file."""


class Tenant(msgspec.Struct, frozen=True, gc=False):
    """Whom a key stands for."""

    name: str
    salt: int
    """64 bits that go into its prompts' prefix hashes: nobody probes another's cache."""
    max_priority: int = 5
    classes: tuple[str, ...] = ()
    """Globs of the classes that its callers may ask for."""

    def may_ask(self, task: str) -> bool:
        return any(fnmatchcase(task, pattern) for pattern in self.classes)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODY = (b"\0" * 32, None)
LOCAL = Tenant("", 0, classes=("*",))
"""Everybody, where no keys are configured."""


class Keyring:
    """The keys that are accepted. An empty one accepts every caller as `LOCAL`."""

    __slots__ = ("_pepper", "_table", "open", "version")

    def __init__(self, pepper: bytes | None = None) -> None:
        self._pepper = os.urandom(32) if pepper is None else pepper
        self._table: dict[bytes, tuple[bytes, Tenant | None]] = {}
        self.open = True
        self.version = 0
        """Grows with every change: an answer of `tenant` holds for one version."""

    def add(self, tenant: Tenant, digest: bytes) -> None:
        """Accept the key whose SHA-256 is `digest`."""
        stored = sha256(self._pepper + digest).digest()
        self._table[stored] = (stored, tenant)
        self.open = False
        self.version += 1

    def tenants(self) -> set[str]:
        """Names of all that keys stand for."""
        return {tenant.name for _, tenant in self._table.values() if tenant is not None}

    def tenant(self, authorization: str | None) -> Tenant | None:
        """The tenant of a `Bearer` header; None when no key fits."""
        if self.open:
            return LOCAL
        text = authorization or ""
        key = text[7:] if text.startswith("Bearer ") or text[:7].lower() == "bearer " else ""
        digest = sha256(self._pepper + sha256(key.encode("utf-8", "surrogateescape")).digest()).digest()
        stored, tenant = self._table.get(digest, _NOBODY)
        return tenant if compare_digest(stored, digest) else None

    def named(self) -> dict[str, Tenant]:
        """The tenants by name; where two keys stand for one, the first."""
        found: dict[str, Tenant] = {}
        for _, tenant in self._table.values():
            if tenant is not None:
                found.setdefault(tenant.name, tenant)
        return found


def keyring(config: Config, environment: Mapping[str, str] = os.environ, pepper: bytes | None = None) -> Keyring:
    """The keys of the configuration and of `PENSTOCK_KEYS`. Raises ConfigError, which never holds a key."""
    ring = Keyring(pepper)
    for index, key in enumerate(config.keys):
        ring.add(_tenant(key.name, key.max_priority, key.classes), _digest(key, f"keys[{index}]", environment))
    for name, text in _pairs(environment.get(ENVIRONMENT, "")):
        ring.add(_tenant(name), sha256(text.encode()).digest())
    return ring


def engine_key(key_env: str, place: str, environment: Mapping[str, str] = os.environ) -> str:
    """The key an engine asks for. Raises ConfigError when its variable is unset or cannot go into a header."""
    key = environment.get(key_env, "")
    if not key:
        raise ConfigError(f"environment variable {key_env} is not set", key=place)
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {key_env} holds characters that a header cannot", key=place)
    return key


def refuse_exposure(config: Config, ring: Keyring) -> None:
    """A listener that other machines can reach needs keys. Raises ConfigError."""
    if ring.open and not is_loopback(config.listen.host):
        raise ConfigError(f"{config.listen.host} can be reached from other machines: set keys, or {ENVIRONMENT}", key="listen.host")
    if not config.admin_key_env and not is_loopback(config.admin.host):
        raise ConfigError(f"{config.admin.host} can be reached from other machines: set admin_key_env", key="admin.host")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _tenant(name: str, max_priority: int = 5, classes: tuple[str, ...] = ()) -> Tenant:
    return Tenant(name, salt(name), max_priority, classes)


def salt(name: str) -> int:
    """64 bits of a tenant's own; 0 for `LOCAL`."""
    return int.from_bytes(sha256(b"penstock prefix salt " + name.encode()).digest()[:8], "big") if name else 0


def _digest(key: Key, place: str, environment: Mapping[str, str]) -> bytes:
    if (key.env is None) == (key.sha256 is None):
        raise ConfigError("needs exactly one of env, sha256", key=place)
    if key.sha256 is not None:
        return bytes.fromhex(key.sha256)
    text = environment.get(str(key.env), "")
    if not text:
        raise ConfigError(f"environment variable {key.env} is not set", key=f"{place}.env")
    return sha256(text.encode()).digest()


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for index, item in enumerate(part for part in text.split(",") if part.strip()):
        name, colon, key = item.strip().partition(":")
        if not (_NAME.fullmatch(name) and colon and key):
            raise ConfigError(f"entry {index + 1} is not of the form tenant:key", key=ENVIRONMENT)
        pairs.append((name, key))
    return pairs
