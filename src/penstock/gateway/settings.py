"""A YAML file -> the frozen `Config`. Every error names file, line and key path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from penstock.config import Config
from penstock.errors import ConfigError
from penstock.gateway import checks, complaint, shorthand
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
        shorthand.write_out(values, document.lines)
        _find_files(values, Path(document.file).parent.absolute())
    try:
        return msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise complaint.explain(str(error), values) from None


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
