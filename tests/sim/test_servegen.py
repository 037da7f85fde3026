"""Arrivals made from ServeGen's clients."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest

from penstock.errors import TraceError
from penstock.sim import traces
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask

TRACE = "0,2.0,1.0,Gamma,1.0,0.5\n600,0,0,,0,0\n1200,0.5,3.0,Weibull,0.4,1.0\n"
DATASET = json.dumps(
    {
        "0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{10: 1.0}", "reason_ratio": "{0.0: 1.0}"},
        "1200": {"input_tokens": "{}", "output_tokens": "{}"},
    }
)


def folder(tmp_path: Path, trace: str = TRACE, dataset: str = DATASET) -> Path:
    (tmp_path / "chunk-0-trace.csv").write_text(trace)
    (tmp_path / "chunk-0-dataset.json").write_text(dataset)
    return tmp_path


def tar(path: Path, files: dict[str, str], *, cut: int | None = None) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"some/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    path.write_bytes(lzma.compress(buffer.getvalue()[:cut]))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        traces.read(path, None, Ask())
    return str(caught.value)


def test_a_window_holds_as_many_arrivals_as_were_recorded(tmp_path: Path) -> None:
    arrivals = traces.read(folder(tmp_path), None, Ask())
    windows = Counter(int(arrival.at_s // 600) for arrival in arrivals)
    assert windows == {0: 1200, 2: 300}
    assert {arrival.tenant for arrival in arrivals} == {"client-0"}


def test_lengths_follow_the_latest_distribution_that_is_not_empty(tmp_path: Path) -> None:
    arrivals = traces.read(folder(tmp_path), None, Ask())
    lengths = Counter(arrival.prompt_tokens for arrival in arrivals)
    assert set(lengths) == {100, 300}
    assert 0.4 < lengths[100] / len(arrivals) < 0.6
    assert {arrival.output_tokens for arrival in arrivals} == {10}


@pytest.mark.parametrize(
    ("kind", "shape", "cv"), [("Gamma", 0.25, 2.0), ("Gamma", 4.0, 0.5), ("Weibull", 0.5, 2.236), ("Weibull", 2.0, 0.523)]
)
def test_gaps_have_the_distribution_of_the_client(tmp_path: Path, kind: str, shape: float, cv: float) -> None:
    arrivals = traces.read(folder(tmp_path, f"0,30,{cv},{kind},{shape},1\n"), None, Ask())
    gaps = [after.at_s - before.at_s for before, after in pairwise(arrivals)]
    assert len(arrivals) == 18_000
    assert stdev(gaps) / mean(gaps) == pytest.approx(cv, rel=0.08)


def test_folder_and_tar_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    packed = tar(tmp_path / "trace.bin", {"chunk-0-trace.csv": TRACE, "README": "x", "chunk-0-dataset.json": DATASET})
    assert traces.read(packed, None, Ask(seed=3)) == traces.read(folder(tmp_path / "folder"), None, Ask(seed=3))


def test_the_seed_changes_arrivals_and_nothing_else_does(tmp_path: Path) -> None:
    path = folder(tmp_path)
    whole = traces.read(path, None, Ask(seed=1))
    assert whole == traces.read(path, None, Ask(seed=1))
    assert whole != traces.read(path, None, Ask(seed=2))
    late = traces.read(path, None, Ask(seed=1, start_s=1200.0))
    assert [arrival.prompt_tokens for arrival in late] == [arrival.prompt_tokens for arrival in whole if arrival.at_s >= 1200.0]
    assert traces.read(path, None, Ask(seed=1, limit=5)) == whole[:5]


def test_the_last_window_is_as_long_as_the_others(tmp_path: Path) -> None:
    arrivals = traces.read(folder(tmp_path, "0,1,1,Gamma,1,1\n"), None, Ask())
    assert len(arrivals) == 600
    assert arrivals[-1].at_s < 600


def test_all_gaps_zero_become_uniform_times(tmp_path: Path) -> None:
    arrivals = traces.read(folder(tmp_path, "0,0.005,30,Gamma,0.001,1\n"), None, Ask())
    assert len(arrivals) == 3
    assert all(0 <= arrival.at_s < 600 for arrival in arrivals)


@pytest.mark.parametrize(
    ("trace", "says"),
    [
        ("0,1,1,Gamma,1\n", "chunk-0-trace.csv:1: 5 columns"),
        ("0,1,1,Gamma,1,1\n600,-1,1,Gamma,1,1\n", "chunk-0-trace.csv:2: rate is '-1'"),
        ("0,nan,1,Gamma,1,1\n", "rate is 'nan'"),
        ("0,1,1,Pareto,1,1\n", "distribution 'Pareto'"),
        ("0,1,1,Gamma,x,1\n", "shape is 'x'"),
        ("0,1e9,1,Gamma,1,1\n", "rate is 1e+09"),
        ("0,0,0,,0,0\n", "holds no ServeGen client"),
        ("", "holds no ServeGen client"),
    ],
)
def test_bad_window_is_named_by_line(tmp_path: Path, trace: str, says: str) -> None:
    if trace:
        assert says in refusal(folder(tmp_path, trace))
    else:
        assert says in refusal(tar(tmp_path / "t", {"chunk-0-trace.csv": "0,1,1,Gamma,1,1\n"}))


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("{", "not a ServeGen dataset"),
        ('{"0": {"input_tokens": "{1: 2", "output_tokens": "{}"}}', "a PDF is a mapping"),
        ('{"0": {"input_tokens": "{12}", "output_tokens": "{}"}}', "a PDF holds '12'"),
        ('{"0": {"input_tokens": "{5: -1}", "output_tokens": "{}"}}', "probability is ' -1'"),
        ('{"0": {"input_tokens": 7}}', "a PDF is a mapping"),
        ('{"x": {"input_tokens": {"5": 1}, "output_tokens": {"5": 1}}}', "window is 'x'"),
    ],
)
def test_bad_dataset_is_named(tmp_path: Path, dataset: str, says: str) -> None:
    message = refusal(folder(tmp_path, TRACE, dataset))
    assert "chunk-0-dataset.json" in message
    assert says in message


def test_truncated_tar_is_an_error(tmp_path: Path) -> None:
    files = {"chunk-0-trace.csv": TRACE, "chunk-0-dataset.json": DATASET * 50}
    assert "truncated or corrupt" in refusal(tar(tmp_path / "t", files, cut=3_000))


def test_production_day_has_its_known_rates(data: Path) -> None:
    ask = Ask(start_s=36_000.0, end_s=37_200.0)
    arrivals: list[Arrival] = traces.read(data / "servegen_deepseek_r1.tar.xz", None, ask)
    assert len(arrivals) == 14_909
    assert arrivals == traces.read(data / "servegen_deepseek_r1.tar.xz", "servegen", ask)
    assert 4 < len(arrivals) / 1_200 < 42
    assert len({arrival.tenant for arrival in arrivals}) == 19
