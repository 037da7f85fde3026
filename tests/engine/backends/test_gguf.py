"""What is read of a GGUF file's head, and what is said of a file that is none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.backends.gguf import Model, read
from penstock.errors import PenstockError


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def head(*entries: bytes, tensors: bytes = b"", count: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, count, len(entries)) + b"".join(entries) + tensors


NAME = entry("general.name", 8, text("My Model 7B (chat)"))
ARCHITECTURE = entry("general.architecture", 8, text("llama"))
CONTEXT = entry("llama.context_length", 4, struct.pack("<I", 4096))
WORDS = entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b"))
SCORES = entry("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 3) + struct.pack("<3f", 0, 1, 2))
NESTED = entry("odd", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 2) + b"ab")
TENSOR = text("output.weight") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0)
WHOLE = head(NAME, ARCHITECTURE, WORDS, SCORES, NESTED, CONTEXT, tensors=TENSOR, count=1) + bytes(96)


def model(tmp_path: Path, content: bytes, name: str = "file.gguf") -> Model:
    path = tmp_path / name
    path.write_bytes(content)
    return read(path)


def test_name_architecture_and_context_are_read(tmp_path: Path) -> None:
    found = model(tmp_path, WHOLE)
    assert (found.name, found.architecture, found.context) == ("My-Model-7B-chat", "llama", 4096)
    assert (found.stem, found.bytes) == ("file", len(WHOLE))


def test_a_file_without_a_name_is_called_as_its_file(tmp_path: Path) -> None:
    assert model(tmp_path, head(ARCHITECTURE), "Qwen3 8B.Q4.gguf").name == "Qwen3-8B.Q4"


def test_a_file_that_says_nothing_has_no_context(tmp_path: Path) -> None:
    found = model(tmp_path, head())
    assert (found.architecture, found.context) == ("unknown", 0)


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    with pytest.raises(PenstockError, match=f"GGUF version {version} cannot be read"):
        model(tmp_path, head(version=version))


def test_every_cut_is_seen(tmp_path: Path) -> None:
    for end in range(len(WHOLE) - 96):
        with pytest.raises(PenstockError, match="cut off at|too short"):
            model(tmp_path, WHOLE[:end])


@pytest.mark.parametrize(
    "content",
    [
        head(entry("x", 99, b"")),
        head(entry("x", 9, struct.pack("<IQ", 99, 1))),
        head(entry("x", 9, struct.pack("<IQ", 8, 1 << 60))),
        head(entry("x", 8, struct.pack("<Q", 1 << 40))),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40),
        head(tensors=text("t") + struct.pack("<I", 9), count=1),
        head(entry("x", 9, b"".join(struct.pack("<IQ", 9, 1) for _ in range(9)))),
    ],
)
def test_a_head_without_sense_is_damaged(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PenstockError, match="damaged"):
        model(tmp_path, content)


@given(st.data())
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(bytes(content))
    try:
        assert read(path).name
    except PenstockError as refused:
        assert "\n" not in str(refused)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    with pytest.raises(PenstockError, match="cannot be read"):
        read(loop)
