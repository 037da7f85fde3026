"""The short forms of task classes and pools, written out: `metadata.amount: {gt: 5}` and `header.x-task: trade*` inside `when`, and
`timeout: {ttft_ms: 500}` for the class's own keys.

Lines are kept with their keys, so that an error found later still names the line where the short form stands.
"""

from __future__ import annotations

from penstock.config import Class
from penstock.errors import ConfigError
from penstock.gateway.document import Plain

PARTS = ("header", "metadata")
TIMES = ("ttft_ms", "ttft_ms_per_1k", "total_ms")
"""Keys that `timeout` may hold."""
NONE = "expected none, or a mapping of ttft_ms, ttft_ms_per_1k and total_ms"


def write_out(values: dict[str, Plain], lines: dict[str, int]) -> None:
    """Change `values`, a configuration file's, and `lines`, in place. Raises ConfigError."""
    classes = values.get("classes")
    for index, one in enumerate(classes if isinstance(classes, list) else []):
        if isinstance(one, dict):
            key = f"classes[{index}]"
            _write_out_timeout(one, key, lines)
    for section in ("classes", "pools"):
        parts = values.get(section)
        for index, one in enumerate(parts if isinstance(parts, list) else []):
            if isinstance(one, dict) and isinstance(when := one.get("when"), dict):
                _write_out_names(when, f"{section}[{index}].when")


def _write_out_timeout(one: dict[str, Plain], key: str, lines: dict[str, int]) -> None:
    if "timeout" not in one or one["timeout"] == "none":
        return
    times = one["timeout"]
    if times is None:
        raise ConfigError(f"{NONE}; for no deadline write the word: timeout: none", key=f"{key}.timeout")
    if not isinstance(times, dict):
        raise ConfigError(NONE, key=f"{key}.timeout")
    if not times:
        raise ConfigError(f"{NONE}; it is empty", key=f"{key}.timeout")
    del one["timeout"]
    for name, value in times.items():
        place = f"{key}.timeout.{name}"
        if name not in TIMES:
            raise ConfigError(f"unknown key; known here: {', '.join(TIMES)}", key=place)
        if name in one:
            raise ConfigError(f"given here, and as {name} of the class: keep one", key=place)
        one[name] = value
        lines[f"{key}.{name}"] = lines.get(place, 0)


def _write_out_names(when: dict[str, Plain], key: str) -> None:
    for short in [name for name in when if name.startswith(tuple(f"{part}." for part in PARTS))]:
        part, _, name = short.partition(".")
        tests = when.setdefault(part, {})
        if not isinstance(tests, dict):
            raise ConfigError("expected a mapping, as dotted keys stand beside it", key=f"{key}.{part}")
        if name in tests:
            raise ConfigError(f"given here, and inside {part}: keep one", key=f"{key}.{short}")
        tests[name] = when.pop(short)
    for part in PARTS:
        if isinstance(tests := when.get(part), dict):
            # Metadata is text; a JSON true that a client sends counts as this text too.
            when[part] = {name: str(test).lower() if isinstance(test, bool) else test for name, test in tests.items()}


def add_to_schema(definitions: dict[str, dict[str, object]]) -> None:
    """Let the JSON Schema's definitions accept what `write_out` does."""
    task = definitions["Class"]
    for when in (definitions["When"], definitions["PoolWhen"]):
        properties: dict[str, dict[str, object]] = when["properties"]  # type: ignore[assignment]
        for part in PARTS:
            test: dict[str, list[object]] = properties[part]["additionalProperties"]  # type: ignore[assignment]
            test["anyOf"].append({"type": "boolean"})
        when["patternProperties"] = {f"^{part}\\..": properties[part]["additionalProperties"] for part in PARTS}
    times: dict[str, dict[str, object]] = task["properties"]  # type: ignore[assignment]
    definitions["Timeout"] = {
        "title": "Timeout",
        "description": f"Short for the same keys of {Class.__name__}.",
        "type": "object",
        "properties": {name: times[name] for name in TIMES},
        "minProperties": 1,
        "additionalProperties": False,
    }
    times["timeout"]["anyOf"] = [{"enum": ["none"]}, {"$ref": "#/$defs/Timeout"}]
    del times["timeout"]["default"]
