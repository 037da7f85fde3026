"""A YAML file -> the frozen `Config`. Every error names file, line and key path."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from penstock.config import Config
from penstock.errors import ConfigError
from penstock.gateway import checks
from penstock.gateway.document import MAX_BYTES, Document, Plain, parse


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read, check and complete the configuration in the file at `path`. Raises ConfigError."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(error.strerror or str(error), file=file) from None
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text", file=file, line=data.count(b"\n", 0, error.start) + 1) from None
    return read(text, environ, file=file)


def read(text: str, environ: Mapping[str, str] = os.environ, *, file: str = "") -> Config:
    """The configuration that `text` holds; files it names are looked up beside `file`. Raises ConfigError."""
    document = parse(text, file)
    try:
        config = _convert(document)
        checks.check(config, environ)
    except ConfigError as error:
        # Checks know the key; only the document knows where it stands.
        raise ConfigError(error.message, key=error.key, line=error.line or document.line(error.key), file=file) from None
    return config


def _convert(document: Document) -> Config:
    values = document.values
    if isinstance(values, dict):
        _expand(values)
        _find_files(values, Path(document.file).parent.absolute())
    try:
        return msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise _explain(str(error), values) from None


# --- short forms -----------------------------------------------------------------------------------------------------


def _expand(values: dict[str, Plain]) -> None:
    """Write out the short forms: `listen: 8080`, `listen: "host:port"`, and a node that is only a URL."""
    for key, port in (("listen", 8080), ("admin", 8081)):
        if key not in values:
            continue
        value = values[key]
        if isinstance(value, int) and not isinstance(value, bool):
            values[key] = {"port": value}
        elif isinstance(value, str):
            values[key] = _address(value, key)
        elif isinstance(value, dict):
            value.setdefault("port", port)
    nodes = values.get("nodes")
    if isinstance(nodes, list):
        values["nodes"] = [{"name": _node_name(node), "url": node} if isinstance(node, str) else node for node in nodes]


def _address(text: str, key: str) -> dict[str, Plain]:
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?([0-9]{1,5})", text)
    if match is None:
        raise ConfigError(f"expected PORT or HOST:PORT, got {text[:60]!r}", key=key)
    host = (match[1] or "").strip("[]")
    return {"port": int(match[2])} | ({"host": host} if host else {})


def _node_name(url: str) -> str:
    try:
        place = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        place = ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", place).strip("-._")[:64] or "node"


def _find_files(values: dict[str, Plain], folder: Path) -> None:
    """Certificates and stores are named relative to the configuration file, not to where the gateway was started."""

    def place(section: Plain, *names: str) -> None:
        if isinstance(section, dict):
            for name in names:
                if isinstance(path := section.get(name), str) and path:
                    section[name] = str(folder / Path(path).expanduser())

    for listener in (values.get("listen"), values.get("admin")):
        if isinstance(listener, dict):
            place(listener.get("tls"), "cert", "key")
    place(values.get("tickets"), "path")
    nodes = values.get("nodes")
    for node in nodes if isinstance(nodes, list) else []:
        place(node, "ca")


# --- msgspec's errors in a person's words ----------------------------------------------------------------------------

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


def _explain(error: str, values: Plain) -> ConfigError:
    message, _, path = error.partition(" - at `$")
    key = re.sub(r"\[\.\.\.\].*", "", path.rstrip("`").removeprefix("."))
    if (match := re.fullmatch(r"Object contains unknown field `(.*)`", message)) is not None:
        return _unknown(match[1], key)
    if (match := re.fullmatch(r"Object missing required field `(.*)`", message)) is not None:
        return ConfigError(f"{match[1]} is missing", key=key)
    return ConfigError(_words(message, key) + _seen(values, key), key=key)


def _unknown(name: str, parent: str) -> ConfigError:
    known = _fields(parent)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return ConfigError(f"unknown key; {hint}", key=f"{parent}.{name}" if parent else name)


def _fields(path: str) -> list[str]:
    """The names a configuration section may hold, from the types along its path."""
    info: Any = msgspec.inspect.type_info(Config)
    for name in re.findall(r"[^.\[\]]+", path):
        if isinstance(info, msgspec.inspect.UnionType):
            info = next(kind for kind in info.types if isinstance(kind, msgspec.inspect.StructType))
        if isinstance(info, msgspec.inspect.StructType):
            info = next(field.type for field in info.fields if field.encode_name == name)
        else:
            info = info.item_type
    if isinstance(info, msgspec.inspect.UnionType):
        info = next(kind for kind in info.types if isinstance(kind, msgspec.inspect.StructType))
    return [field.encode_name for field in info.fields]


def _words(message: str, key: str) -> str:
    if "matching regex" in message:
        return _PATTERNS.get(key.rpartition(".")[2], "not of the form that is allowed here")
    message = re.sub(r", got `.*`$", "", message).replace(" | null", "")
    message = re.sub(r"`(\w+)`", lambda match: _KINDS.get(match[1], match[1]), message)
    return message[0].lower() + message[1:]


_PATTERNS = {
    "url": "expected http://HOST:PORT or https://HOST",
    "name": "expected a name of letters, digits, '.', '_' and '-', 64 at most, a letter or digit first",
    "sha256": "expected 64 hexadecimal digits, lower case",
}


def _seen(values: Plain, key: str) -> str:
    # A key may have been written where its hash belongs: nothing of that section is repeated.
    if key.startswith("keys") or "key" in key.rpartition(".")[2]:
        return ""
    for name in re.findall(r"[^.\[\]]+", key):
        if isinstance(values, dict) and name in values:
            values = values[name]
        elif isinstance(values, list) and name.isdigit():
            values = values[int(name)]
        else:
            return ""
    if isinstance(values, dict | list):
        return f", got {_KINDS['object' if isinstance(values, dict) else 'array']}"
    return f", got {'nothing' if values is None else msgspec.json.encode(values).decode()[:60]}"
