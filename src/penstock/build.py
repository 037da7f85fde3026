"""Whether this package was compiled (docs/architecture.md, Compiled): its sources say the same either way, and it is faster."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_CORE = Path(__file__).with_name("core")

BUILD = "compiled" if any((_CORE / f"core{suffix}").exists() for suffix in EXTENSION_SUFFIXES) else "pure Python"
