"""The import law: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"
FILES = {".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES.rglob("*.py")}

ENGINE = ("model", "sequence", "memory", "decoding", "leap", "histogram", "text", "call", "answer", "exposition", "faults")
NOUNS = ("facts", "events", "knobs", "config", "errors", "journal")
PURE = (*NOUNS, "policy", "core", "wire", "metrics", "control", *(f"engine.{name}" for name in ENGINE))
CLOCKS = {"time", "asyncio", "socket", "logging", "os", "threading"}
LIVE = ("gateway", "http1", "admin", "load", "supervisor", "engine.server", "engine.node", "engine.clock", "engine.backends")
REQUEST_PATH = (*PURE, "gateway", "http1", "admin", "engine")
HEAVY = {
    "starlette",
    "uvicorn",
    "prometheus_client",
    "rich",
    "sklearn",
    "numpy",
    "torch",
    "onnxruntime",
    "ray",
    "kubernetes",
    "sqlite3",
    "xllamacpp",
}

RUNNERS = {"eval", "exec", "compile", "__import__", "yaml.load", "os.system", "os.popen"}


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == f"penstock.{name}" or module.startswith(f"penstock.{name}.") for name in packages)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk(tree: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """Everything that runs: not what is under TYPE_CHECKING, and function bodies only when asked for."""
    for child in ast.iter_child_nodes(tree):
        if for_types_only(child) or (not functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        yield child
        yield from walk(child, functions=functions)


@cache
def imports(module: str, *, functions: bool) -> frozenset[str]:
    found = set()
    for node in walk(ast.parse(FILES[module].read_text()), functions=functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
    return frozenset(found)


def random_uses(module: str) -> set[str]:
    """What a module takes from `random`, beside the type it is given an instance of."""
    tree = ast.parse(FILES[module].read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random"}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "random" for alias in node.names}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return (used - {"Random"}) | ({"Random()"} if calls & {"random.Random", "Random"} else set())


def offenders(packages: tuple[str, ...], wrong: Callable[[str], Collection[str]]) -> dict[str, Collection[str]]:
    """The modules of `packages` in which something is wrong, and what."""
    return {module: found for module in sorted(FILES) if inside(module, packages) and (found := wrong(module))}


def roots(module: str, *, functions: bool) -> set[str]:
    return {name.partition(".")[0] for name in imports(module, functions=functions)}


def test_pure_modules_have_no_clock_socket_or_log() -> None:
    assert not offenders(PURE, lambda module: roots(module, functions=True) & CLOCKS)


def test_pure_modules_draw_no_chance_of_their_own() -> None:
    assert not offenders(PURE, random_uses)


def test_pure_modules_reach_nothing_live() -> None:
    assert not offenders(PURE, lambda module: [name for name in imports(module, functions=True) if inside(name, (*LIVE, "sim", "cli"))])


def test_live_packages_and_the_simulator_stay_apart() -> None:
    assert not offenders(LIVE, lambda module: [name for name in imports(module, functions=True) if inside(name, ("sim",))])
    assert not offenders(("sim",), lambda module: [name for name in imports(module, functions=True) if inside(name, LIVE)])


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    light = ("cli", "core", "policy", "gateway", "http1", "wire", "supervisor", "engine")
    assert not offenders(light, lambda module: roots(module, functions=False) & HEAVY)


def test_a_foreign_server_runs_in_its_backend_alone() -> None:
    foreign = {"xllamacpp"}
    users = {module for module in FILES if roots(module, functions=True) & foreign}
    assert users == {"penstock.engine.backends.llama_cpp"}


def test_there_is_no_import_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for name in sorted(imports(module, functions=False) & FILES.keys()):
                visit(name, (*path, module))
            done.add(module)

    for module in sorted(FILES):
        visit(module, ())


def test_nothing_that_handles_requests_can_run_what_it_is_sent() -> None:
    def dangers(module: str) -> set[str]:
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Call)}
        return calls & RUNNERS | roots(module, functions=True) & {"pickle", "marshal", "shelve", "subprocess", "pty"}

    assert not offenders(REQUEST_PATH, dangers)


def test_the_command_line_imports_nothing_heavy() -> None:
    script = "import sys, penstock.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCES)}
    ).stdout.split()
    assert not set(loaded) & (HEAVY | {"yaml", "asyncio", "uvloop", "httptools"})
