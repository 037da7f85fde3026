"""The gateway's journal as a trace."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from penstock.config import Config
from penstock.errors import TraceError
from penstock.events import Action, Arrived, Event, Finished, Forward, Tick
from penstock.facts import Request
from penstock.journal import MAGIC, Head, frame
from penstock.knobs import Knobs
from penstock.sim import traces
from penstock.sim.traces.ask import Ask

Step = tuple[float, Event]


def segment(number: int, steps: list[Step]) -> bytes:
    actions: list[Action] = [Forward(1, "a")]
    head = Head(config=Config(), knobs=Knobs(), seed=0, segment=number)
    return MAGIC + frame(head) + b"".join(frame((now, event, actions)) for now, event in steps)


def asked(id: int, prompt: int = 10) -> Arrived:
    return Arrived(Request(id, "m", tenant="t", prompt_tokens=prompt, stream=id % 2 == 0, blocks=(5, 6), session="s", max_tokens=9))


STEPS: list[Step] = [(100.0, asked(1)), (100.5, Tick()), (101.0, asked(2, 20)), (102.0, Finished(1, output_tokens=7)), (104.0, asked(3))]


def test_requests_get_the_length_their_answer_had(tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(segment(0, STEPS))
    first, second, third = traces.read(path, None, Ask())
    assert (first.at_s, first.prompt_tokens, first.output_tokens, first.stream) == (0.0, 10, 7, False)
    assert (first.tenant, first.model, first.session, first.blocks, first.max_tokens) == ("t", "m", "s", (5, 6), 9)
    assert (second.at_s, second.prompt_tokens, second.stream) == (1.0, 20, True)
    assert third.at_s == 4.0


def test_unknown_lengths_are_the_median_of_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "any"
    ends: list[Step] = [(200.0 + id, Finished(id, output_tokens=tokens)) for id, tokens in ((1, 10), (2, 20), (3, 30), (4, -1))]
    begins: list[Step] = [(100.0 + id, asked(id)) for id in (1, 2, 3, 4, 5)]
    path.write_bytes(segment(0, begins + ends))
    assert [arrival.output_tokens for arrival in traces.read(path, None, Ask())] == [10, 20, 30, 20, 20]
    path.write_bytes(segment(0, [(100.0, asked(1))]))
    assert [arrival.output_tokens for arrival in traces.read(path, None, Ask())] == [256]


def test_a_folder_is_its_runs_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "20260101-1-00000.journal").write_bytes(segment(0, STEPS[:3]))
    (tmp_path / "20260101-1-00001.journal.gz").write_bytes(gzip.compress(segment(1, STEPS[3:])))
    (tmp_path / "20260102-9-00000.journal").write_bytes(segment(0, [(7.0, asked(1, 33))]))
    arrivals = traces.read(tmp_path, None, Ask())
    assert [arrival.at_s for arrival in arrivals] == [0.0, 1.0, 4.0, 5.0]
    assert arrivals[0].output_tokens == 7
    assert arrivals[3].prompt_tokens == 33


@pytest.mark.parametrize("content", [MAGIC, MAGIC + b"\x00\x00\x00\x03abc", segment(0, []), segment(0, [(1.0, Tick())])])
def test_journal_without_requests_or_head_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.journal"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"any\.journal"):
        traces.read(path, None, Ask())
    with pytest.raises(TraceError, match=str(tmp_path)):
        traces.read(tmp_path, None, Ask())
