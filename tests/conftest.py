"""What every test sees: one hypothesis profile, traces in `PENSTOCK_DATA`, a state folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# The machines that run this are slow and shared: a deadline on one example would measure the neighbours.
settings.register_profile("penstock", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("penstock")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gateways on a port of their own keep tickets by address: not in the folder of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with public traces; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no traces in {folder}; set PENSTOCK_DATA")
    return folder


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of DeepSeek's architecture, for tests with a real llama.cpp; they are skipped where it is not installed."""
    absent = [name for name in ("xllamacpp", "gguf", "numpy") if find_spec(name) is None]
    if absent:
        pytest.skip(f"a real llama.cpp needs {' and '.join(absent)}: pip install {' '.join(absent)}")
    from tests.engine import gguf_model

    return gguf_model.write(tmp_path_factory.mktemp("model") / "tiny.gguf")
