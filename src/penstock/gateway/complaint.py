"""msgspec's complaint about a configuration in a person's words, with the key it speaks of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.config import Config
from penstock.errors import ConfigError
from penstock.gateway.document import Plain

Step = str | int
ANY = "[...]"
"""How msgspec writes a mapping's entry: it does not say which."""

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_PATTERNS = {
    "url": "expected http://HOST:PORT or https://HOST",
    "name": "expected a name of letters, digits, '.', '_' and '-', 64 at most, a letter or digit first",
    "sha256": "expected 64 hexadecimal digits, lower case",
}


def explain(error: str, values: Plain) -> ConfigError:
    """`error` is what msgspec said of `values`, which it could not convert."""
    message, _, written = error.partition(" - at `$")
    path = _named(_steps(written.rstrip("`")), error, values)
    if (match := re.fullmatch(r"Object contains unknown field `(.*)`", message)) is not None:
        return _unknown(match[1], path)
    if (match := re.fullmatch(r"Object missing required field `(.*)`", message)) is not None:
        return ConfigError(f"{match[1]} is missing", key=_key(path))
    return ConfigError(_words(message, path) + _seen(values, path), key=_key(path))


def _steps(written: str) -> list[Step]:
    parts = re.findall(r"\[\.\.\.\]|\[[0-9]+\]|[^.\[\]]+", written)
    return [int(part[1:-1]) if part[0] == "[" and part != ANY else part for part in parts]


def _key(path: Sequence[Step]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _named(path: list[Step], error: str, values: Plain) -> list[Step]:
    """The path with the entries' names: alone in its mapping, the one at fault brings the same complaint."""
    while ANY in path:
        at = path.index(ANY)
        entries = _at(values, path[:at])
        if not isinstance(entries, dict):
            return path[:at]
        kept = dict(entries)
        guilty = next((name for name, value in kept.items() if _complains(values, entries, {name: value}, error)), None)
        entries.clear()
        entries.update(kept)
        if guilty is None:
            return path[:at]
        path[at] = guilty
    return path


def _complains(values: Plain, entries: dict[str, Plain], alone: dict[str, Plain], error: str) -> bool:
    entries.clear()
    entries.update(alone)
    try:
        msgspec.convert(values, Config)
    except msgspec.ValidationError as again:
        return str(again) == error
    return False


def _at(values: Plain, path: Sequence[Step]) -> Plain:
    for step in path:
        if isinstance(values, dict) and step in values:
            values = values[str(step)]
        elif isinstance(values, list) and isinstance(step, int):
            values = values[step]
        else:
            return None
    return values


def _unknown(name: str, parent: list[Step]) -> ConfigError:
    known = _fields(parent)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return ConfigError(f"unknown key; {hint}", key=_key([*parent, name]))


def _fields(path: Sequence[Step]) -> list[str]:
    """The names a configuration section may hold."""
    return [field.encode_name for field in _of(_type(path), "fields").fields]


def _type(path: Sequence[Step]) -> Any:
    """What is expected at `path`, from the types along it."""
    info: Any = msgspec.inspect.type_info(Config)
    for step in path:
        if isinstance(info, msgspec.inspect.UnionType):
            info = _of(info, "fields")
        if isinstance(info, msgspec.inspect.StructType):
            info = next(field.type for field in info.fields if field.encode_name == step)
        else:
            info = info.value_type if isinstance(info, msgspec.inspect.DictType) else info.item_type
    return info


def _of(info: Any, attribute: str) -> Any:
    """The type itself, or that of a union which has `attribute`."""
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return next(kind for kind in kinds if hasattr(kind, attribute))


def _choices(path: Sequence[Step]) -> str:
    info = _type(path)
    values = [member.value for member in info.cls] if isinstance(info, msgspec.inspect.EnumType) else _of(info, "values").values
    return ", ".join(map(str, values))


def _words(message: str, path: Sequence[Step]) -> str:
    if message.startswith("Invalid enum value"):
        return f"expected one of {_choices(path)}"
    if "matching regex" in message:
        return _PATTERNS.get(str(path[-1]) if path else "", "not of the form that is allowed here")
    message = re.sub(r", got `.*`$", "", message).replace(" | null", "")
    message = re.sub(r"`([\w |]+)`", lambda match: " or ".join(_KINDS.get(kind, kind) for kind in match[1].split(" | ")), message)
    return message[0].lower() + message[1:]


def _seen(values: Plain, path: Sequence[Step]) -> str:
    # A key may have been written where its hash belongs: nothing of that section is repeated.
    if path and (path[0] == "keys" or "key" in str(path[-1])):
        return ""
    value = _at(values, path)
    if isinstance(value, dict | list):
        return f", got {_KINDS['object' if isinstance(value, dict) else 'array']}"
    return f", got {'nothing' if value is None else msgspec.json.encode(value).decode()[:60]}"
