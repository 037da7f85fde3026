"""Azure's traces and tables like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import TraceError
from penstock.sim import traces
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def read(tmp_path: Path, *rows: str, form: str | None = None) -> list[Arrival]:
    path = tmp_path / "trace.csv"
    path.write_text("\r\n".join(rows) + "\r\n")
    return traces.read(path, form, Ask())


def test_seven_digits_of_fraction_are_kept(tmp_path: Path) -> None:
    first, second = read(tmp_path, HEADER, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109")
    assert (first.prompt_tokens, first.output_tokens) == (374, 44)
    assert second.at_s == pytest.approx(4.314579, abs=1e-6)


@pytest.mark.parametrize(
    "later",
    [
        "2023-11-16 18:16:00.5",
        "2023-11-16T18:16:00.5000000Z",
        "2023-11-16 18:16:00.500000+00:00",
        "2023-11-16 20:16:00.5+02:00",
        "2023-11-16 18:16:00.5 +00:00",
    ],
)
def test_time_zones_are_read(tmp_path: Path, later: str) -> None:
    assert read(tmp_path, HEADER, "2023-11-16 18:15:00,1,1", f"{later},1,1")[1].at_s == pytest.approx(60.5)


def test_columns_may_come_in_any_order_with_others_between(tmp_path: Path) -> None:
    arrivals = read(
        tmp_path, "GeneratedTokens,zone,timestamp, Context Tokens", "7,eu,2024-05-10 00:00:01,50", "8,us,2024-05-10 00:00:00,60"
    )
    assert [(arrival.at_s, arrival.prompt_tokens, arrival.output_tokens) for arrival in arrivals] == [(0.0, 60, 8), (1.0, 50, 7)]


def test_plain_seconds_and_other_names_are_read(tmp_path: Path) -> None:
    rows = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "5,ChatGPT,472,18,490,Conversation log",
        "45.5,G,0,0,0,x",
    )
    assert read(tmp_path, *rows) == [Arrival(0.0, 472, 18), Arrival(40.5, 1, 1)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("2023-11-16 18:15:46.68,-3,44", "ContextTokens is '-3'"),
        ("2023-11-16 18:15:46.68,3,nan", "GeneratedTokens is 'nan'"),
        ("2023-11-16 18:15:46.68,inf,1", "ContextTokens is 'inf'"),
        ("2023-11-16 18:15:46.68,,1", "ContextTokens is ''"),
        ("2023-11-16 18:15:46.68,1.5,1", "ContextTokens is '1.5'"),
        ("2023-11-16 18:15:46.68,3", "2 columns where the header has 3"),
        ("yesterday,3,4", "TIMESTAMP is 'yesterday'"),
        ("2023-13-45 18:15:46.68,3,4", "TIMESTAMP is '2023-13-45"),
        ("2023-11-16 18:15:99.68,3,4", "TIMESTAMP is"),
        ("2023-11-16 18:15:46.6.8,3,4", "TIMESTAMP is"),
        ("nan,3,4", "TIMESTAMP is 'nan'"),
        ("-5,3,4", "TIMESTAMP is '-5'"),
        ('"2023-11-16 18:15:46,3,4', ""),
    ],
)
def test_bad_row_is_named_by_line(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, HEADER, "2023-11-16 18:15:46,1,1", row)
    assert caught.value.line == 3
    assert says in str(caught.value)


def test_wrong_header_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="the header must name"):
        read(tmp_path, "a,b,c", "1,2,3", form="azure")


def test_header_alone_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no request"):
        read(tmp_path, HEADER)


def test_conversation_trace_has_its_known_means(data: Path) -> None:
    arrivals = traces.read(data / "azure2023_conv.csv.gz", None, Ask())
    assert len(arrivals) == 19_366
    assert round(sum(arrival.prompt_tokens for arrival in arrivals) / len(arrivals)) == 1_155
    assert round(sum(arrival.output_tokens for arrival in arrivals) / len(arrivals)) == 211
    assert arrivals == sorted(arrivals, key=lambda arrival: arrival.at_s)
    assert 3_400 < arrivals[-1].at_s < 3_600
