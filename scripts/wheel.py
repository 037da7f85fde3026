"""Compiles the modules of the hot path into the wheel, when PENSTOCK_COMPILED=1; otherwise the wheel is pure.

The sources stay as they are, and nothing is written beside them: an old extension next to an edited module would win over it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WANTED = os.environ.get("PENSTOCK_COMPILED", "") not in ("", "0")


class Compiled(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the compiler needs, and what the modules import: types decide what is made of them."""
        return ["mypy>=2.4,<3", "setuptools>=65", *self.metadata.core.dependencies] if WANTED else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not WANTED or version == "editable":
            return
        os.chdir(self.root)
        sources, folder = Path("src"), Path("build", "compiled")
        shutil.rmtree(folder, ignore_errors=True)
        wanted = {path for pattern in self.config["modules"] for path in sources.glob(pattern)}
        left = {path for pattern in self.config["interpreted"] for path in sources.glob(pattern)}
        made = extensions([str(path) for path in sorted(wanted - left)], folder)
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["force_include"].update({str(path): str(path.relative_to(folder / "lib")) for path in made})


def extensions(modules: list[str], folder: Path) -> list[Path]:
    """Compile modules into libraries under `folder`."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    options = ["--config-file", "pyproject.toml", "--cache-dir", str(folder / "cache"), "--python-executable", sys.executable]
    parts = mypycify([*options, *modules], opt_level="3", debug_level="0", group_name="penstock", target_dir=str(folder / "c"))
    command = build_ext(Distribution({"name": "penstock", "ext_modules": parts}))
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "objects")
    command.ensure_finalized()
    command.run()
    return sorted((folder / "lib").rglob("*.so"))
