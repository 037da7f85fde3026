"""The JSON Schema and the reference page of the configuration, generated from the fields of `penstock.config`."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any, get_args

import msgspec

from penstock import config, knobs
from penstock.config import Config
from penstock.gateway import shorthand

_FORMS = {get_args(config.Name)[1].pattern: "name", "^https?://": "URL", "^(.*:)?[0-9]{1,5}$": "HOST:PORT"}
_URL = {"type": "string", "pattern": "^https?://"}
_ADDRESS = [{"type": "integer", "minimum": 0, "maximum": 65535}, {"type": "string", "pattern": "^(.*:)?[0-9]{1,5}$"}]


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration file, short forms included."""
    (_, definitions) = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    descriptions = _descriptions()
    for name, definition in definitions.items():
        for field, entry in definition.get("properties", {}).items():
            if text := descriptions.get((name, field)):
                entry.setdefault("description", text)
    for field in ("listen", "admin"):
        listen = definitions["Config"]["properties"][field]
        listen["anyOf"] = [{"$ref": listen.pop("$ref")}, *_ADDRESS]
    nodes = definitions["Config"]["properties"]["nodes"]
    nodes["items"] = {"anyOf": [nodes["items"], _URL]}
    shorthand.add_to_schema(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Penstock configuration",
        "$ref": "#/$defs/Config",
        "$defs": definitions,
    }


def reference() -> str:
    """The configuration's reference page, as Markdown: one table a section, one row a field."""
    definitions = schema()["$defs"]
    return "\n".join(_section(name, definitions[name]) for name in _in_order(definitions))


def _in_order(definitions: dict[str, Any]) -> list[str]:
    """Each section right after the one that first names it."""
    order = ["Config"]
    for name in order:
        for found in re.findall(r"#/\$defs/(\w+)", str(definitions[name])):
            if found not in order:
                order.append(found)
    return order


def _section(name: str, definition: dict[str, Any]) -> str:
    title = "The file" if name == "Config" else name
    lines = [f"## {title}", ""]
    if (text := definition.get("description")) and name != "Config":
        lines += [text.replace("\n", " "), ""]
    if "enum" in definition:
        described = _descriptions()
        lines += ["| Value | |", "|---|---|"] + [
            f"| `{value}` | {described.get((name, value.upper()), '')} |" for value in definition["enum"]
        ]
        return "\n".join([*lines, ""])
    lines += ["| Key | Value | Default | |", "|---|---|---|---|"]
    required = definition.get("required", ())
    for field, entry in definition["properties"].items():
        default = "**required**" if field in required else _default(entry)
        cells = (f"`{field}`", _kind(entry), default, entry.get("description", ""))
        lines.append("".join(f"| {cell} ".replace("  ", " ") for cell in cells) + "|")
    return "\n".join([*lines, ""])


def _default(entry: dict[str, Any]) -> str:
    value = entry.get("default")
    if value is None or value in ({}, []) or isinstance(value, dict):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def _kind(entry: dict[str, Any]) -> str:
    """A field's type and bounds in words."""
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in entry:
        return " or ".join(_kind(one) for one in entry["anyOf"] if one.get("type") != "null")
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    match entry["type"]:
        case "array":
            return f"list of {_kind(entry['items'])}"
        case "object":
            return f"name: {_kind(entry['additionalProperties'])}"
        case "boolean":
            return "true or false"
        case "string":
            return _FORMS.get(entry.get("pattern", ""), "text")
        case kind:
            return _number("whole number" if kind == "integer" else "number", entry)


def _number(kind: str, entry: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {entry[name]}" for name, sign in signs.items() if name in entry)
    return f"{kind} {bounds}".strip()


def _descriptions() -> dict[tuple[str, str], str]:
    """(class, field) -> the docstring under the field. Only the source holds these, so it is read, not imported."""
    found = {}
    for module in (config, knobs):
        for part in ast.parse(inspect.getsource(module)).body:
            if isinstance(part, ast.ClassDef):
                for field, after in zip(part.body, part.body[1:], strict=False):
                    if (text := _docstring(after)) and (target := _target(field)):
                        found[part.name, target] = text
    return found


def _target(statement: ast.stmt) -> str:
    """The name a class field or an enum's member is given."""
    target = (
        statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0] if isinstance(statement, ast.Assign) else None
    )
    return target.id if isinstance(target, ast.Name) else ""


def _docstring(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
        return " ".join(statement.value.value.split())
    return ""
