"""YAML text -> plain values, with the line every key stands on.

Stricter than YAML 1.1: numbers, `true`, `false` and `null` are read as in YAML 1.2 (so `no` and `12:30` are text and
`1e9` is a number), duplicate keys and tags are refused, and depth and size are bounded after aliases are expanded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import yaml

from penstock.errors import ConfigError

Plain = dict[str, "Plain"] | list["Plain"] | str | int | float | bool | None

MAX_BYTES = 1_048_576
MAX_DEPTH = 32
MAX_VALUES = 100_000  # what nine lines of nested aliases would exceed

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's reader and parser with YAML 1.2's idea of which plain words are not text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _words, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+(?:_[0-9]+)*$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(_words), _first)


@dataclass(frozen=True)
class Document:
    """A configuration file's values, and the line (from 1) of every key path such as `nodes[0].url`."""

    values: Plain
    lines: dict[str, int]
    file: str

    def line(self, key: str) -> int:
        """The line of `key`, or of the nearest key around it; 0 when there is none."""
        while key and key not in self.lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.lines.get(key, 0)


def parse(text: str, file: str = "") -> Document:
    """Read one YAML document. Raises ConfigError with file, line and key."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES} bytes", file=file)
    try:
        _check_depth(text, file)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"not YAML: {error.problem or error.context}", file=file, line=mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", file=file) from None
    walk = _Walk(file)
    values = walk.value(root, "") if root is not None else {}
    return Document(values, walk.lines, file)


def _check_depth(text: str, file: str) -> None:
    # Composing recurses; parsing does not, so it can refuse what is too deep first.
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"nested deeper than {MAX_DEPTH}", file=file, line=_line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(place: yaml.Node | yaml.Event) -> int:
    return place.start_mark.line + 1 if place.start_mark else 0


class _Walk:
    """One pass over the composed nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[str, int] = {}
        self.count = 0
        self.open: set[int] = set()

    def fail(self, message: str, key: str, node: yaml.Node) -> ConfigError:
        return ConfigError(message, file=self.file, line=_line(node), key=key)

    def value(self, node: yaml.Node, key: str) -> Plain:
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.fail(f"more than {MAX_VALUES} values once aliases are expanded", key, node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, key)
        if id(node) in self.open:
            raise self.fail("an alias inside its own anchor", key, node)
        self.open.add(id(node))
        try:
            return self.mapping(node, key) if isinstance(node, yaml.MappingNode) else self.sequence(node, key)
        finally:
            self.open.discard(id(node))

    def scalar(self, node: yaml.ScalarNode, key: str) -> Plain:
        match node.tag.removeprefix(_TAG):
            case "str":
                return str(node.value)
            case "null":
                return None
            case "bool":
                return str(node.value).lower() == "true"
            case "int" | "float" as kind:
                return self.number(node, key, kind)
        raise self.fail(f"tag {node.tag} is not read here", key, node)

    def number(self, node: yaml.ScalarNode, key: str, kind: str) -> int | float:
        try:
            number = int(node.value) if kind == "int" else float(node.value)
        except ValueError:
            raise self.fail(f"not a number: {node.value[:40]!r}", key, node) from None
        if not math.isfinite(number) or abs(number) >= 2**63:
            raise self.fail(f"number out of range: {node.value[:40]}", key, node)
        return number

    def sequence(self, node: yaml.Node, key: str) -> list[Plain]:
        if node.tag != _TAG + "seq":
            raise self.fail(f"tag {node.tag} is not read here", key, node)
        items: list[Plain] = []
        for index, item in enumerate(node.value):
            path = f"{key}[{index}]"
            self.lines.setdefault(path, _line(item))
            items.append(self.value(item, path))
        return items

    def mapping(self, node: yaml.Node, key: str) -> dict[str, Plain]:
        if node.tag != _TAG + "map":
            raise self.fail(f"tag {node.tag} is not read here", key, node)
        entries: dict[str, Plain] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode) or name_node.tag == _TAG + "null":
                raise self.fail("a key must be a word", key, name_node)
            name = str(name_node.value)
            path = f"{key}.{name}" if key else name
            if name in entries:
                raise self.fail(f"the key stands here twice, first on line {self.lines[path]}", path, name_node)
            self.lines[path] = _line(name_node)
            entries[name] = self.value(value_node, path)
        return entries
