"""VTC's result documents as arrivals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import TraceError
from penstock.sim import traces
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask

DATA = (
    next((folder for folder in (above / "shared" / "data" for above in Path(__file__).parents) if folder.exists()), Path())
    / "vtc_fcfs_real.jsonl.gz"
)
ROW = {"adapter_dir": "client-1", "prompt_len": 10, "output_len": 20, "req_time": 5.0, "first_token_latency": 1.0}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "trace.jsonl"
    path.write_text(json.dumps({"config": {"mode": "real"}, "result": {"total_time": 1.0, "responses": list(rows)}}) + "\n")
    return path


def test_rows_are_recognised_and_read_in_order_of_time_from_zero(tmp_path: Path) -> None:
    path = written(tmp_path, ROW, ROW | {"adapter_dir": "client-2", "req_time": 3.5})
    assert traces.read(path, None, Ask()) == [Arrival(0.0, 10, 20, tenant="client-2"), Arrival(1.5, 10, 20, tenant="client-1")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"prompt_len": -3}, r"result.responses\[1\]: prompt_len is -3"),
        (ROW | {"req_time": "soon"}, r"result.responses\[1\]: req_time is 'soon'"),
        (ROW | {"adapter_dir": 7}, "expected result.responses with rows"),
        ({"adapter_dir": "x"}, "expected result.responses with rows"),
    ],
)
def test_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        traces.read(written(tmp_path, ROW, row), None, Ask())


def test_document_without_rows_and_text_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no request"):
        traces.read(written(tmp_path), "vtc", Ask())
    path = tmp_path / "broken"
    path.write_text('{"result": {"responses": [{"adapter_dir"')
    with pytest.raises(TraceError, match="not a JSON document"):
        traces.read(path, "vtc", Ask())


@pytest.mark.skipif(not DATA.exists(), reason="shared/data is not here")
def test_the_released_trace_has_27_clients() -> None:
    arrivals = traces.read(DATA, None, Ask())
    assert (len(arrivals), len({arrival.tenant for arrival in arrivals})) == (1_500, 27)
