"""What a configuration's types cannot say: names that must exist, rules that contradict, files that must be readable."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from penstock import policy
from penstock.config import Config, Listen
from penstock.errors import ConfigError
from penstock.gateway import auth, matrix, pools

LONGEST_WINDOW_S = 366 * 86_400.0


def check(config: Config, environ: Mapping[str, str]) -> None:
    """Raise ConfigError, with the key path, at the first thing that cannot work."""
    for section in ("keys", "nodes", "classes", "pools"):
        _unique((part.name for part in getattr(config, section)), section, "name")
    _check_listeners(config, environ)
    _unique((key.sha256 for key in config.keys), "keys", "sha256")
    _unique((key.env for key in config.keys), "keys", "env")
    _check_limits(config)
    _check_store(config.tickets.path)
    _check_nodes(config, environ)
    _check_names(config)
    matrix.check(config)
    pools.check(config)
    _check_policy(config)


def _unique(values: Iterable[str | None], section: str, field: str) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        if value is None:
            continue
        if value in seen:
            raise ConfigError(f"the same as {section}[{seen[value]}].{field}", key=f"{section}[{index}].{field}")
        seen[value] = index


def _check_variable(name: str | None, key: str, environ: Mapping[str, str]) -> None:
    if name is not None and not environ.get(name):
        raise ConfigError(f"environment variable {name} is {'empty' if name in environ else 'not set'}", key=key)


def _check_readable(path: str | None, key: str) -> None:
    if path is None:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", key=key) from None


# --- listeners -------------------------------------------------------------------------------------------------------


def _check_listeners(config: Config, environ: Mapping[str, str]) -> None:
    auth.refuse_exposure(config, auth.keyring(config, environ))
    _check_variable(config.admin_key_env, "admin_key_env", environ)
    if config.listen.port == config.admin.port != 0 and config.listen.host == config.admin.host:
        raise ConfigError(f"port {config.admin.port} is the API's already (listen)", key="admin.port")
    _check_tls(config.listen, "listen")
    _check_tls(config.admin, "admin")


def _check_tls(listen: Listen, key: str) -> None:
    if listen.tls is None:
        return
    _check_readable(listen.tls.cert, f"{key}.tls.cert")
    _check_readable(listen.tls.key, f"{key}.tls.key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.tls.cert, listen.tls.key)
    except ssl.SSLError as error:
        raise ConfigError(f"certificate and key do not work together: {error.reason or error}", key=f"{key}.tls") from None


# --- limits of keys --------------------------------------------------------------------------------------------------


def _check_limits(config: Config) -> None:
    for at, key in enumerate(config.keys):
        seen: dict[tuple[str, float], int] = {}
        for index, limit in enumerate(key.limits):
            place = f"keys[{at}].limits[{index}]"
            kinds = [kind for kind in ("requests", "tokens", "cost") if getattr(limit, kind) is not None]
            if len(kinds) != 1:
                raise ConfigError("needs exactly one of requests, tokens, cost", key=place)
            kind = kinds[0]
            if limit.window_s > LONGEST_WINDOW_S:
                raise ConfigError(f"expected at most {LONGEST_WINDOW_S:g} seconds (a year)", key=f"{place}.window_s")
            if kind == "cost" and not config.prices:
                raise ConfigError("a limit of cost needs prices; set prices, or limit tokens", key=f"{place}.cost")
            if (kind, limit.window_s) in seen:
                raise ConfigError(f"the same {kind} and window_s as limits[{seen[kind, limit.window_s]}]; keep one", key=place)
            seen[kind, limit.window_s] = index


def _check_store(path: str | None) -> None:
    if path is None:
        return
    if not path.strip():
        raise ConfigError("names no file; leave it out for the usual place", key="tickets.path")
    if os.path.isdir(os.path.expanduser(path)):
        raise ConfigError(f"{path} is a folder; name a file in it", key="tickets.path")


# --- nodes, pools, models --------------------------------------------------------------------------------------------


def _check_nodes(config: Config, environ: Mapping[str, str]) -> None:
    _unique((node.url.rstrip("/") for node in config.nodes), "nodes", "url")
    for index, node in enumerate(config.nodes):
        key = f"nodes[{index}]"
        _check_url(node.url, f"{key}.url")
        if node.key_env is not None:
            auth.engine_key(node.key_env, f"{key}.key_env", environ)
        _check_readable(node.ca, f"{key}.ca")
        if not node.url.startswith("https:") and (node.ca or node.sni):
            raise ConfigError("needs an https:// url", key=f"{key}.ca" if node.ca else f"{key}.sni")
        if node.profile is not None:
            _check_profile(node.profile, f"{key}.profile")


def _check_url(url: str, key: str) -> None:
    try:
        parts = urlsplit(url)
        fine = bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isascii():
        raise ConfigError(f"no host, or a port that is none of 1 to 65535, in {url[:80]!r}", key=key)


def _check_profile(name: str, key: str) -> None:
    from penstock.engine import profiles

    try:
        profiles.load(name)
    except ConfigError as error:
        raise ConfigError(error.message, key=key) from None


def _check_names(config: Config) -> None:
    for alias, model in config.aliases.items():
        if model in config.aliases:
            raise ConfigError(f"{model!r} is an alias itself", key=f"aliases.{alias}")
    served = {model for node in config.nodes for model in node.models} | {model for pool in config.pools for model in pool.models}
    if config.nodes and all(node.models for node in config.nodes):
        for alias, model in config.aliases.items():
            if model not in served:
                raise ConfigError(f"no node serves {model!r}; they serve {', '.join(sorted(served))}", key=f"aliases.{alias}")


# --- policy ----------------------------------------------------------------------------------------------------------


def _check_policy(config: Config) -> None:
    chosen = config.policy
    policy.find(policy.ORDER, chosen.order, "policy.order")
    policy.find(policy.ADMIT, chosen.admit, "policy.admit")
    policy.find(policy.PICK, chosen.pick, "policy.pick")
    if not chosen.hash_by:
        raise ConfigError("names nothing; leave it out for session, prefix, tenant", key="policy.hash_by")
    for index, kind in enumerate(chosen.hash_by):
        if kind in chosen.hash_by[:index]:
            raise ConfigError(f"{kind} is named before", key=f"policy.hash_by[{index}]")
    for name, weight in chosen.score.items():
        policy.find(policy.SCORE, name, f"policy.score.{name}")
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(f"expected a weight of at least 0, got {weight:g}", key=f"policy.score.{name}")
    if not any(chosen.score.values()):
        raise ConfigError("give at least one score a weight above 0", key="policy.score")
