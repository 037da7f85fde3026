from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from penstock.config import Config, Key, Node
from penstock.core import Core
from penstock.errors import ConfigError, TraceError
from penstock.events import Arrived, ConfigReplaced, Event, Failed, Finished, FirstToken, NodeSeen, Tick
from penstock.facts import Failure, Request, Signals
from penstock.gateway.journal import Journal
from penstock.gateway.replay import replay
from penstock.journal import LENGTH_BYTES, MAGIC, SUFFIX, Head, frame, read
from penstock.knobs import Knobs

CONFIG = Config(nodes=(Node(name="a", url="http://127.0.0.1:1"), Node(name="b", url="http://127.0.0.1:2")))
HEAD = Head(config=CONFIG, knobs=Knobs(), seed=7)


def _story() -> list[tuple[float, Event]]:
    """A few hundred calls that queue, stream, fail and end."""
    rng = random.Random(3)
    story: list[tuple[float, Event]] = [(0.0, NodeSeen("a", Signals(models=("m",)))), (0.0, NodeSeen("b", Signals(models=("m",))))]
    for id in range(1, 200):
        at = id * 0.01
        story.append((at, Arrived(Request(id, "m", prompt_tokens=rng.randint(1, 9_000), stream=True, blocks=(id % 5, id)))))
        story.append((at + 0.3, Failed(id, Failure.RESET) if id % 17 == 0 else FirstToken(id)))
        story.append((at + 0.9, Finished(id, 200, 10, 0, 5)))
    story.append((9.0, Tick()))
    return sorted(story, key=lambda pair: pair[0])


def _write(folder: Path, story: Sequence[tuple[float, Event]], *, segment_bytes: int = 1 << 20, config: Config = CONFIG) -> None:
    async def run() -> None:
        core = Core(config, Knobs(), random.Random(7))
        journal = Journal(folder, Head(config=config, knobs=Knobs(), seed=7), segment_bytes=segment_bytes)
        for index, (now, event) in enumerate(story):
            journal.write(now, event, core.handle(event, now))
            if index % 50 == 0:
                journal.flush()
                await asyncio.sleep(0)
        await journal.close()
        assert journal.failed == ""

    asyncio.run(run())


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_a_journal_replays_to_the_same_actions(tmp_path: Path) -> None:
    story = _story()
    _write(tmp_path, story)
    result = replay(tmp_path)
    assert result.difference is None
    assert (result.runs, result.events, result.torn) == (1, len(story), {})
    assert result.actions >= 199


def test_segments_are_bounded_and_replay_as_one_run(tmp_path: Path) -> None:
    story = _story()
    _write(tmp_path, story, segment_bytes=4_000)
    paths = _segments(tmp_path)
    assert len(paths) > 5
    head_bytes = len(frame(HEAD)) + len(MAGIC)
    assert all(path.stat().st_size <= 4_000 + head_bytes for path in paths)
    result = replay(tmp_path)
    assert (result.difference, result.runs, result.events) == (None, 1, len(story))


def test_each_run_in_a_folder_starts_afresh(tmp_path: Path) -> None:
    story = _story()
    _write(tmp_path, story)
    _write(tmp_path, story)
    result = replay(tmp_path)
    assert (result.difference, result.runs, result.events) == (None, 2, 2 * len(story))


def test_the_first_different_action_is_reported_with_its_event(tmp_path: Path) -> None:
    event = Arrived(Request(1, "m"))
    _write(tmp_path, [(0.0, event)])
    [path] = _segments(tmp_path)
    with path.open("ab") as file:
        file.write(frame((1.0, Tick(), [])) + frame((2.0, Arrived(Request(2, "m")), [])) + frame((3.0, Arrived(Request(3, "m")), [])))
    found = replay(tmp_path).difference
    assert found is not None
    assert (found.index, found.event, found.expected) == (2, Arrived(Request(2, "m")), [])
    assert len(found.got) == 1


def test_a_record_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    story = _story()
    _write(tmp_path, story)
    [path] = _segments(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    result = replay(tmp_path)
    assert (result.difference, result.events) == (None, len(story) - 1)
    assert result.torn == {str(path): len(frame((9.0, Tick(), []))) - 3}
    path.write_bytes(whole + b"\0\0")
    assert replay(tmp_path).events == len(story)


@pytest.mark.parametrize("length", [b"\0\x0f\xff\xff", b"\xff\xff\xff\xff"], ids=["long", "longest"])
@pytest.mark.parametrize("index", [5, -1], ids=["in the middle", "at the end"])
def test_a_damaged_length_is_damage_and_no_torn_tail(tmp_path: Path, length: bytes, index: int) -> None:
    _write(tmp_path, _story())
    [path] = _segments(tmp_path)
    data = bytearray(path.read_bytes())
    starts = [len(MAGIC)]
    while starts[-1] < len(data):
        starts.append(starts[-1] + LENGTH_BYTES + int.from_bytes(data[starts[-1] :][:LENGTH_BYTES], "big"))
    at = starts[:-1][index]
    data[at : at + LENGTH_BYTES] = length
    path.write_bytes(data)
    with pytest.raises(TraceError, match=f"damaged at byte {at}: {len(data) - at} bytes"):
        replay(tmp_path)


def test_a_segment_that_is_missing_or_cut_before_others_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, _story(), segment_bytes=4_000)
    paths = _segments(tmp_path)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-1])
    with pytest.raises(TraceError, match="cut short"):
        replay(tmp_path)
    paths[1].unlink()
    with pytest.raises(TraceError, match="segment 1 is missing"):
        replay(tmp_path)


def test_another_versions_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"x-00000{SUFFIX}"
    path.write_bytes(MAGIC + frame(Head(config=CONFIG, knobs=Knobs(), seed=1, version="9.9.9")))
    with pytest.raises(TraceError, match=r"version 9\.9\.9"):
        replay(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"{}", MAGIC, MAGIC + b"\0\0\0\x05\xc1\xc1\xc1\xc1\xc1", MAGIC + frame(HEAD) + b"\0\0\0\x01\xc1"], ids=str
)
def test_what_is_no_journal_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / f"x-00000{SUFFIX}").write_bytes(data)
    with pytest.raises(TraceError):
        replay(tmp_path)


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no"):
        replay(tmp_path)
    with pytest.raises(TraceError, match="no such folder"):
        replay(tmp_path / "nowhere")


def test_bytes_that_went_bad_on_the_disk_are_a_difference_or_an_error(tmp_path: Path) -> None:
    _write(tmp_path, _story()[:60])
    path = _segments(tmp_path)[0]
    whole = path.read_bytes()
    rng = random.Random(11)
    for _ in range(150):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        path.write_bytes(data)
        try:
            replay(tmp_path)
        except TraceError as error:
            assert str(path) in str(error)


def test_no_digest_of_a_key_is_written(tmp_path: Path) -> None:
    digest = sha256(b"sk-canary").hexdigest()
    config = Config(nodes=CONFIG.nodes, keys=(Key(name="desk", sha256=digest),))
    _write(tmp_path, [(0.0, ConfigReplaced(config))], config=config)
    [path] = _segments(tmp_path)
    data = path.read_bytes()
    assert digest.encode() not in data
    assert bytes.fromhex(digest) not in data
    head, records, _ = read(data, str(path))
    assert [key.name for key in head.config.keys] == ["desk"]
    assert len(list(records)) == 1


def test_only_the_owner_may_read_a_journal(tmp_path: Path) -> None:
    _write(tmp_path, _story())
    assert all(path.stat().st_mode & 0o077 == 0 for path in _segments(tmp_path))


def test_a_full_disk_ends_the_journal_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> Journal:
        journal = Journal(tmp_path, HEAD)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._file.fileno())
        os.close(full)
        for now in range(100):
            journal.write(now, Tick(), [])
            journal.flush()
            await asyncio.sleep(0.001)
        await journal.close()
        return journal

    with caplog.at_level(logging.ERROR):
        journal = asyncio.run(run())
    assert journal.failed == "No space left on device"
    assert [record.getMessage() for record in caplog.records] == [
        f"journal stopped: {tmp_path}: No space left on device; the gateway goes on without it"
    ]


def test_a_folder_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write a journal"):
        Journal(tmp_path / "file" / "below", HEAD)


def test_frames_carry_their_length() -> None:
    data = frame((1.5, Tick(), []))
    assert int.from_bytes(data[:LENGTH_BYTES], "big") == len(data) - LENGTH_BYTES
