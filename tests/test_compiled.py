"""The law for modules that the wheel may compile: what mypyc would silently get wrong, or refuse only when it runs."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src"


@cache
def compiled() -> dict[str, Path]:
    """The modules that the build hook compiles, by name."""
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    found: set[Path] = set()
    for pattern in hook["modules"]:
        matched = set(SOURCES.glob(pattern))
        assert matched, f"no module is {pattern}"
        found |= matched
    found -= {path for pattern in hook["interpreted"] for path in SOURCES.glob(pattern)}
    return {".".join(path.relative_to(SOURCES).with_suffix("").parts): path for path in found}


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]


def test_compiled_modules_define_no_structs_and_no_class_keywords() -> None:
    for name, path in compiled().items():
        for one in classes(path):
            bases = {ast.unparse(base).rpartition(".")[2] for base in one.bases}
            assert "Struct" not in bases and not one.keywords, f"{name}.{one.name}: mypyc drops a struct's options"


def test_interpreted_classes_inherit_from_no_compiled_one() -> None:
    owned = {f"{name}.{one.name}" for name, path in compiled().items() for one in classes(path)}
    for path in SOURCES.rglob("*.py"):
        if path in compiled().values():
            continue
        imported: dict[str, str] = {}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for one in classes(path):
            for base in one.bases:
                head, _, rest = ast.unparse(base).partition(".")
                full = imported.get(head, head) + (f".{rest}" if rest else "")
                assert full not in owned, f"{path.name}: {one.name} would inherit from a compiled class"


def test_no_extension_lies_beside_a_source() -> None:
    assert not list(SOURCES.rglob("*.so"))
