"""Packed and plain files read alike; broken ones say what is wrong and where."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import TraceError
from penstock.sim import traces
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.source import opened

ROWS = b"".join(b'{"timestamp": %d, "input_length": 700, "output_length": 3, "hash_ids": [1, 2]}\n' % (at * 100) for at in range(3_000))


def refusal(path: Path, form: str | None = None) -> str:
    with pytest.raises(TraceError) as caught:
        traces.read(path, form, Ask())
    return str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, lambda data: gzip.compress(lzma.compress(data))])
def test_packing_is_told_by_content_not_by_name(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes(pack(ROWS))
    with opened(path) as source:
        assert b"".join(line + b"\n" for line in source.lines()) == ROWS
        assert source.line == 3_000
    assert len(traces.read(path, None, Ask())) == 3_000


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_truncated_file_is_named_with_the_line_reached(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "trace"
    packed = pack(ROWS)
    path.write_bytes(packed[: len(packed) * 3 // 4])
    message = refusal(path)
    assert "truncated" in message
    assert str(path) in message


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_corrupt_file_is_an_error(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "trace"
    packed = bytearray(pack(ROWS))
    packed[len(packed) // 2 :] = b"\xff" * 40
    path.write_bytes(packed)
    assert "truncated or corrupt" in refusal(path)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.jsonl") == f"{tmp_path}/none.jsonl: no such file"


def test_unreadable_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    assert "cannot be read" in refusal(tmp_path / "file" / "below")


@pytest.mark.parametrize("content", [b"", gzip.compress(b""), lzma.compress(b"")])
def test_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    assert "is empty" in refusal(path)


@pytest.mark.parametrize("content", [b"hello\n", b"\x00\x01\x02", b"a,b,c\n1,2,3\n", b"{}\n", b"[1]"])
def test_file_of_another_kind_names_the_known_formats(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    assert "not a trace that is known (mooncake, azure, servegen, vtc, journal)" in refusal(path)


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    assert refusal(tmp_path, "csv") == "unknown format 'csv'; known: mooncake, azure, servegen, vtc, journal"


@pytest.mark.parametrize("form", ["mooncake", "azure", "servegen", "vtc", "journal"])
def test_forced_format_that_does_not_fit_is_an_error(tmp_path: Path, form: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"something else\n" * 100)
    assert str(path) in refusal(path, form)


@pytest.mark.parametrize("form", ["mooncake", "azure"])
def test_binary_content_is_an_error(tmp_path: Path, form: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"\x80\xff\x00" * 1000)
    assert str(path) in refusal(path, form)


def test_folder_without_a_trace_is_an_error(tmp_path: Path) -> None:
    assert "folder without a trace" in refusal(tmp_path)


def test_endless_line_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.sim.traces.source.LINE_BYTES", 1_000)
    path = tmp_path / "trace"
    path.write_bytes(b'{"input_length": ' + b"1" * 2_000)
    assert "line is longer" in refusal(path)
