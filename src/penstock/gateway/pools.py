"""What cannot work in pools: nobody in them, models that none of their nodes has, fallbacks that lead nowhere, rules never asked.

Where nodes come at run time (`discovery`), or have not said what they serve, only what is certain is refused.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from penstock.config import Config, Pool, Rung
from penstock.core.classify import DEFAULT
from penstock.core.members import Members
from penstock.errors import ConfigError
from penstock.gateway import matrix


def check(config: Config) -> None:
    """Raise ConfigError, with the key path, at the first thing that cannot work."""
    pools = {pool.name: pool for pool in config.pools}
    for index, pool in enumerate(config.pools):
        key = f"pools[{index}]"
        _check_members(config, pool, key)
        _check_rule(config, pool, key)
        _check_fallback(pools, config, pool, f"{key}.fallback")
    _check_reached(config)
    for key, ladder in (("ladder", config.ladder), *((f"classes[{at}].ladder", one.ladder) for at, one in enumerate(config.classes))):
        _check_siblings(pools, ladder, key)


# --- nodes and models ------------------------------------------------------------------------------------------------


def _check_members(config: Config, pool: Pool, key: str) -> None:
    if not pool.nodes and not pool.labels:
        raise ConfigError("nobody can be in it; give nodes by name, or the labels that its nodes have", key=key)
    for place, name in enumerate(pool.nodes):
        if name in pool.nodes[:place]:
            raise ConfigError(f"{name} stands here twice", key=f"{key}.nodes[{place}]")
    for place, model in enumerate(pool.models):
        if model in config.aliases:
            raise ConfigError(f"{model!r} is an alias; name the engine's model, {config.aliases[model]!r}", key=f"{key}.models[{place}]")
    if _found(config):
        return
    names = [node.name for node in config.nodes]
    for place, name in enumerate(pool.nodes):
        if name not in names:
            known = f"there are {', '.join(names)}" if names else "there are none"
            raise ConfigError(f"no node is named {name!r}; {known}", key=f"{key}.nodes[{place}]")
    members = [node for node in config.nodes if Members(pool).has(node)]
    if not members:
        wanted = ", ".join(f"{name}: {value}" for name, value in pool.labels.items())
        raise ConfigError(f"no node has these labels ({wanted})", key=f"{key}.labels")
    if all(node.models for node in members):
        served = {model for node in members for model in node.models}
        for place, model in enumerate(pool.models):
            if model not in served:
                raise ConfigError(
                    f"none of its nodes serves {model!r}; they serve {', '.join(sorted(served))}", key=f"{key}.models[{place}]"
                )


def _found(config: Config) -> bool:
    """Whether there may be nodes that the file does not name."""
    return config.discovery.file is not None or bool(config.discovery.dns)


def _known(config: Config, pool: Pool) -> set[str] | None:
    """The models it serves; None where only time will tell."""
    if pool.models:
        return set(pool.models)
    members = [node for node in config.nodes if Members(pool).has(node)]
    return None if _found(config) or not all(node.models for node in members) else {model for node in members for model in node.models}


# --- rules -----------------------------------------------------------------------------------------------------------


def _check_rule(config: Config, pool: Pool, key: str) -> None:
    when = pool.when
    matrix.check_when(when, f"{key}.when")
    classes = [*(one.name for one in config.classes), DEFAULT.name]
    if when.task is not None and not any(fnmatchcase(name, when.task) for name in classes):
        raise ConfigError(f"no class is named {when.task!r}; there are {', '.join(classes)}", key=f"{key}.when.class")
    known = _known(config, pool)
    if when.model is not None and known is not None and not any(fnmatchcase(model, when.model) for model in known):
        raise ConfigError(f"it serves no model {when.model!r}, only {', '.join(sorted(known))}", key=f"{key}.when.model")


def _check_reached(config: Config) -> None:
    """Each pool must be the first for some request, or somebody's fallback."""
    fallbacks = {pool.fallback for pool in config.pools}
    for index, pool in enumerate(config.pools):
        if pool.name in fallbacks:
            continue
        known = _known(config, pool)
        for place, before in enumerate(config.pools[:index]):
            earlier = _known(config, before)
            if known is None or earlier is None or not known <= earlier or not _covers(before, pool):
                continue
            everything = "takes everything" if before.when == type(before.when)() else "takes all that meets its rule"
            raise ConfigError(
                f"never reached: pools[{place}] ({before.name}) {everything} for its models; put this one first, give it a rule, "
                f"or name it as a fallback",
                key=f"pools[{index}]",
            )


def _covers(wide: Pool, narrow: Pool) -> bool:
    return matrix.implied(wide.when.task, narrow.when.task) and matrix.covers(wide.when, narrow.when)


# --- fallbacks -------------------------------------------------------------------------------------------------------


def chain(pools: dict[str, Pool], name: str) -> list[str]:
    """The pools that are tried after this one, in order; up to the first that comes again."""
    found: list[str] = []
    while (following := pools[name].fallback) is not None and following in pools:
        found.append(following)
        if following in found[:-1]:
            break
        name = following
    return found


def _check_fallback(pools: dict[str, Pool], config: Config, pool: Pool, key: str) -> None:
    if pool.fallback is None:
        return
    if pool.fallback not in pools:
        raise ConfigError(f"no pool is named {pool.fallback!r}; there are {', '.join(pools)}", key=key)
    after = chain(pools, pool.name)
    if pool.name in after:
        way = [pool.name, *after[: after.index(pool.name) + 1]]
        raise ConfigError(f"goes round in a circle: {' -> '.join(way)}", key=key)
    mine, others = _known(config, pool), [_known(config, pools[name]) for name in after]
    if mine is not None and all(other is not None and not mine & other for other in others):
        raise ConfigError(f"none of its models ({', '.join(sorted(mine))}) is served by {' or '.join(after)}", key=key)


def _check_siblings(pools: dict[str, Pool], ladder: tuple[Rung, ...], key: str) -> None:
    """As many such rungs as there are pools to try, and no more."""
    places = [index for index, rung in enumerate(ladder) if rung is Rung.SIBLING]
    if not places:
        return
    most = max((len(chain(pools, name)) for name in pools), default=0)
    if not most:
        raise ConfigError("no pool names another one as its fallback", key=f"{key}[{places[0]}]")
    if len(places) > most and Rung.SMALLER not in ladder:
        raise ConfigError(f"no pool has more than {most} to fall back on, one after the other", key=f"{key}[{places[most]}]")
