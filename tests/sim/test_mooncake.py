"""Mooncake's traces and those like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import TraceError
from penstock.sim import traces
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask

GOOD = '{"timestamp": 1000, "input_length": 1500, "output_length": 20, "hash_ids": [7, 8, 9]}'


def read(tmp_path: Path, *rows: str, **ask: float) -> list[Arrival]:
    path = tmp_path / "trace"
    path.write_text("\n".join(rows) + "\n")
    return traces.read(path, "mooncake", Ask(**ask))  # type: ignore[arg-type]


def test_row_becomes_an_arrival_with_its_full_blocks(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) == [Arrival(0.0, 1500, 20, (7, 8))]


def test_rows_are_sorted_and_start_at_zero(tmp_path: Path) -> None:
    rows = [f'{{"timestamp": {at}, "input_length": {at}, "output_length": 1}}' for at in (5000, 2000, 9000)]
    assert [(arrival.at_s, arrival.prompt_tokens) for arrival in read(tmp_path, *rows)] == [(0.0, 2000), (3.0, 5000), (7.0, 9000)]


def test_extra_keys_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b'\xef\xbb\xbf{"timestamp": 1, "input_length": 3, "output_length": 4, "model": {"x": [1]}}\r\n\r\n')
    assert traces.read(path, None, Ask()) == [Arrival(0.0, 3, 4)]


def test_zero_lengths_become_one_token(tmp_path: Path) -> None:
    assert read(tmp_path, '{"timestamp": 0, "input_length": 0, "output_length": 0, "hash_ids": []}') == [Arrival(0.0, 1, 1)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"timestamp": 0, "input_length": -1, "output_length": 4}', "input_length is -1"),
        ('{"timestamp": 0, "input_length": 5, "output_length": -4}', "output_length is -4"),
        ('{"timestamp": -3, "input_length": 5, "output_length": 4}', "timestamp is -3"),
        ('{"timestamp": 0, "input_length": NaN, "output_length": 4}', "not a JSON object"),
        ('{"timestamp": 0, "input_length": 1e400, "output_length": 4}', "out of range"),
        ('{"timestamp": 0, "input_length": 1.5, "output_length": 4}', "input_length is 1.5"),
        ('{"timestamp": 0, "input_length": "many", "output_length": 4}', "input_length is 'many'"),
        ('{"timestamp": 0, "input_length": null, "output_length": 4}', "input_length is None"),
        ('{"timestamp": 0, "input_length": true, "output_length": 4}', "input_length is True"),
        ('{"timestamp": 0, "input_length": 1e12, "output_length": 4}', "input_length is"),
        ('{"timestamp": 1e30, "input_length": 5, "output_length": 4}', "timestamp is 1e+30"),
        ('{"timestamp": 0, "output_length": 4}', "input_length"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 4, "hash_ids": ["a"]}', "hash_ids"),
        ("[1, 2]", "array"),
        ('{"timestamp": 0, "input_le', "not a JSON object"),
    ],
)
def test_bad_row_is_named_by_line(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, GOOD, "", row)
    assert caught.value.line == 3
    assert says in str(caught.value)


def test_only_blank_lines_are_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no request"):
        read(tmp_path, "", "")


def test_empty_window_says_how_long_the_trace_is(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no request is inside the window; the trace runs from 0 to 0 s"):
        read(tmp_path, GOOD, start_s=100.0)


def test_seconds_and_small_blocks_of_bailian_traces_are_recognised(tmp_path: Path) -> None:
    ids = list(range(100))
    longer = [*ids[:64], *range(1000, 1032)]
    rows = [
        f'{{"chat_id": 1, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 1600, "output_length": 2, "hash_ids": {ids}}}',
        f'{{"chat_id": 2, "parent_chat_id": 1, "timestamp": 3.0, "input_length": 1536, "output_length": 2, "hash_ids": {longer}}}',
    ]
    first, second = read(tmp_path, *rows)
    assert second.at_s == 1.5
    assert (len(first.blocks), len(second.blocks)) == (3, 3)
    assert first.blocks[:2] == second.blocks[:2]
    assert first.blocks[2] != second.blocks[2]


def test_large_blocks_are_split(tmp_path: Path) -> None:
    first, second = read(
        tmp_path,
        '{"timestamp": 0, "input_length": 4096, "output_length": 1, "hash_ids": [1, 2, 3, 4]}',
        '{"timestamp": 1, "input_length": 2048, "output_length": 1, "hash_ids": [1, 2]}',
    )
    assert len(first.blocks) == 8
    assert first.blocks[:4] == second.blocks


def test_conversation_trace_has_its_known_means(data: Path) -> None:
    arrivals = traces.read(data / "mooncake_conversation.jsonl.gz", None, Ask())
    assert len(arrivals) == 12_031
    assert round(sum(arrival.prompt_tokens for arrival in arrivals) / len(arrivals)) == 12_035
    assert round(sum(arrival.output_tokens for arrival in arrivals) / len(arrivals)) == 343
    assert 3_530 < arrivals[-1].at_s < 3_540
    half = traces.read(data / "mooncake_conversation.jsonl.gz", None, Ask(start_s=600.0, end_s=1200.0, speedup=2.0))
    assert all(0.0 <= arrival.at_s < 300.0 for arrival in half)
    assert len(traces.read(data / "mooncake_conversation.jsonl.gz", None, Ask(limit=7))) == 7
