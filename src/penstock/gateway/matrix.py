"""What cannot work in the task matrix: rules that no request can meet, bounds that contradict, ladders and floors that make no sense."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from math import inf

from penstock.config import Class, Config, Range, Rung, Test, When
from penstock.core.classify import DEFAULT
from penstock.core.condition import matcher, within
from penstock.errors import ConfigError
from penstock.facts import Route

SECRET = ("authorization", "cookie", "api-key", "x-api-key", "proxy-*")
"""Headers that hold credentials: what rules read of a request is written to the journal."""
FRAMING = ("content-length", "transfer-encoding")
"""Headers about the bytes of a message, not about what is asked."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_WILD = frozenset("*?[")
PATH_MOST = 128
"""Characters of a metadata field's name, dots included."""


def check(config: Config) -> None:
    """Raise ConfigError, with the key path, at the first thing that cannot work."""
    for index, one in enumerate(config.classes):
        key = f"classes[{index}]"
        _check_times(one, key)
        check_when(one.when, f"{key}.when")
        _check_ladder(one.ladder, f"{key}.ladder", config)
    _check_reached(config)
    _check_floors(config.classes)
    _check_ladder(config.ladder, "ladder", config)
    _check_keys(config)
    _check_smaller(config)


def _check_times(one: Class, key: str) -> None:
    if one.timeout == "none":
        for name in ("ttft_ms", "total_ms"):
            if getattr(one, name) is not None:
                raise ConfigError(f"a class with timeout: none has no deadline: drop timeout, or {name}", key=f"{key}.{name}")
    if one.ttft_ms is None and one.ttft_ms_per_1k:
        raise ConfigError("adds to ttft_ms, which is not given", key=f"{key}.ttft_ms_per_1k")
    if one.ttft_ms is not None and one.total_ms is not None and one.total_ms < one.ttft_ms:
        raise ConfigError("the whole answer cannot be due before its first token (ttft_ms)", key=f"{key}.total_ms")


# --- conditions ------------------------------------------------------------------------------------------------------


def check_when(when: When, key: str) -> None:
    route = when.route
    if route is not None and not any(fnmatchcase(known, route) for known in Route):
        raise ConfigError(f"no route is named {route!r}; known: {', '.join(Route)}", key=f"{key}.route")
    if when.prompt_tokens is not None:
        _check_range(when.prompt_tokens, f"{key}.prompt_tokens")
    if when.difficulty is not None:
        _check_range(when.difficulty, f"{key}.difficulty")
        if _lower(when.difficulty) >= (1.0, True) or _upper(when.difficulty) <= (0.0, False):
            raise ConfigError("difficulty is from 0 to 1", key=f"{key}.difficulty")
    for part in ("header", "metadata"):
        for name, test in getattr(when, part).items():
            if isinstance(test, Range):
                _check_range(test, f"{key}.{part}.{name}")
    _check_header_names(when, f"{key}.header")
    for name in when.metadata:
        if len(name) > PATH_MOST or not all(name.split(".")):
            raise ConfigError(
                f"expected a field's name of at most {PATH_MOST} characters, with single dots between an object and its field",
                key=f"{key}.metadata.{name}",
            )


def _check_header_names(when: When, key: str) -> None:
    seen: dict[str, str] = {}
    for name in when.header:
        low, place = name.lower(), f"{key}.{name}"
        if not _HEADER.fullmatch(name):
            raise ConfigError("expected a header's name of at most 64 letters, digits and '-'", key=place)
        if any(fnmatchcase(low, secret) for secret in SECRET):
            raise ConfigError("no rule may look at a header that holds credentials; use tenant for who calls", key=place)
        if low in FRAMING:
            raise ConfigError("no rule may look at the framing of a message; use prompt_tokens for its size", key=place)
        if low in seen:
            raise ConfigError(f"the same header as {seen[low]}: capitals do not count", key=place)
        seen[low] = name


def _check_range(bounds: Range, key: str) -> None:
    if bounds == Range():
        raise ConfigError("give gt, ge, lt or le", key=key)
    if bounds.gt is not None and bounds.ge is not None:
        raise ConfigError("give gt or ge, not both", key=key)
    if bounds.lt is not None and bounds.le is not None:
        raise ConfigError("give lt or le, not both", key=key)
    low = bounds.ge if bounds.gt is None else bounds.gt
    high = bounds.le if bounds.lt is None else bounds.lt
    if low is not None and high is not None and (low > high or (low == high and (bounds.gt is not None or bounds.lt is not None))):
        raise ConfigError("no number is in this range", key=key)


# --- rules that an earlier one hides ---------------------------------------------------------------------------------


def _check_reached(config: Config) -> None:
    """Every rule must be able to be the first that matches, or be one that a key's callers may ask for by name."""
    for index, one in enumerate(config.classes):
        if any(fnmatchcase(one.name, pattern) for key in config.keys for pattern in key.classes):
            continue
        for place, before in enumerate(config.classes[:index]):
            if before.when == When():
                raise ConfigError(f"never reached: classes[{place}] ({before.name}) matches everything", key=f"classes[{index}]")
            if covers(before.when, one.when):
                raise ConfigError(f"never reached: classes[{place}] ({before.name}) matches all of it", key=f"classes[{index}]")


def covers(wide: When, narrow: When) -> bool:
    """Whether everything that `narrow` matches is sure to match `wide` too. False where only a closer look could tell."""
    for name in ("model", "route", "tenant", "stream", "prompt_tokens", "difficulty", "session"):
        if not implied(getattr(wide, name), getattr(narrow, name)):
            return False
    headers = {name.lower(): test for name, test in narrow.header.items()}
    return all(implied(test, headers.get(name.lower())) for name, test in wide.header.items()) and all(
        implied(test, narrow.metadata.get(name)) for name, test in wide.metadata.items()
    )


def implied(wide: Test | None, narrow: Test | None) -> bool:
    if wide is None or wide == narrow:
        return True
    if narrow is None:
        return False
    if isinstance(wide, str):
        # A field that passes any test at all is there, which is all that `*` asks.
        return wide == "*" or (isinstance(narrow, str) and not set(narrow) & _WILD and matcher(wide)(narrow))
    if isinstance(narrow, str):
        return False
    if isinstance(wide, Range):
        return _contains(wide, narrow) if isinstance(narrow, Range) else within(wide)(narrow)
    return False


def _contains(wide: Range, narrow: Range) -> bool:
    return _lower(wide) <= _lower(narrow) and _upper(wide) >= _upper(narrow)


def _lower(bounds: Range) -> tuple[float, bool]:
    """The lower end, and whether it is itself outside."""
    if bounds.gt is not None:
        return bounds.gt, True
    return (-inf if bounds.ge is None else bounds.ge), False


def _upper(bounds: Range) -> tuple[float, bool]:
    """The upper end, and whether it is itself inside."""
    if bounds.lt is not None:
        return bounds.lt, False
    return (inf if bounds.le is None else bounds.le), True


# --- what a class is given -------------------------------------------------------------------------------------------


def _check_ladder(ladder: tuple[Rung, ...], key: str, config: Config) -> None:
    for index, rung in enumerate(ladder):
        if rung in ladder[:index] and rung is not Rung.SIBLING:
            raise ConfigError(f"{rung} stands here twice", key=f"{key}[{index}]")
        if rung is Rung.REJECT and index < len(ladder) - 1:
            raise ConfigError("nothing can be tried after reject: put it last", key=f"{key}[{index}]")
        if rung is Rung.SMALLER and not config.smaller:
            raise ConfigError("no model has a smaller one; name them: `smaller: {MODEL: OTHER}`", key=f"{key}[{index}]")


def _check_floors(classes: tuple[Class, ...]) -> None:
    total = 0.0
    for index, one in enumerate(classes):
        total += one.floor
        if total > 1.0 + 1e-9:
            raise ConfigError(
                f"the floors of the classes up to here come to {total:.4g}, more than the whole (1)", key=f"classes[{index}].floor"
            )


def _check_keys(config: Config) -> None:
    names = [*(one.name for one in config.classes), DEFAULT.name]
    for index, key in enumerate(config.keys):
        for place, pattern in enumerate(key.classes):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(f"no class is named {pattern!r}; there are {', '.join(names)}", key=f"keys[{index}].classes[{place}]")


def _check_smaller(config: Config) -> None:
    for model, smaller in config.smaller.items():
        key = f"smaller.{model}"
        for name in (model, smaller):
            if name in config.aliases:
                raise ConfigError(f"{name!r} is an alias; name the engine's model, {config.aliases[name]!r}", key=key)
        seen = [model]
        while smaller not in seen:
            seen.append(smaller)
            if smaller not in config.smaller:
                break
            smaller = config.smaller[smaller]
        else:
            raise ConfigError(f"goes round in a circle: {' -> '.join([*seen, smaller])}", key=key)
    if config.nodes and all(node.models for node in config.nodes):
        served = {model for node in config.nodes for model in node.models} | {model for pool in config.pools for model in pool.models}
        for model, smaller in config.smaller.items():
            if smaller not in served:
                raise ConfigError(f"no node serves {smaller!r}; they serve {', '.join(sorted(served))}", key=f"smaller.{model}")
