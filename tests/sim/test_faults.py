"""Fault files."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import TraceError
from penstock.sim.faults import Fault, read


def faults(tmp_path: Path, text: str) -> list[Fault]:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    return read(path, ["n0", "n1"])


def test_passing_faults_get_their_end_and_all_come_in_order(tmp_path: Path) -> None:
    text = """
- {at_s: 60, node: n1, do: kill, for_s: 30}
- {at_s: 10, node: n0, do: slow, factor: 3, for_s: 5.5}
- {at_s: 5, node: n0, do: mute, for_s: 1}
- {at_s: 100, node: n0, do: restart, for_s: 3}
"""
    assert faults(tmp_path, text) == [
        Fault(5, "n0", "mute", for_s=1),
        Fault(6, "n0", "unmute"),
        Fault(10, "n0", "slow", 3, 5.5),
        Fault(15.5, "n0", "slow", 1.0),
        Fault(60, "n1", "kill", for_s=30),
        Fault(90, "n1", "restart"),
        Fault(100, "n0", "restart", for_s=3),
    ]


def test_json_is_read_too(tmp_path: Path) -> None:
    assert faults(tmp_path, '[{"at_s": 1, "node": "n1", "do": "kill"}]') == [Fault(1, "n1", "kill")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {at_s: 1, node: n9, do: kill}", r"\[0\].node: no node 'n9'; known: n0, n1"),
        ("- {at_s: -1, node: n0, do: kill}", "at_s"),
        ("- {at_s: 1, node: n0, do: explode}", "explode"),
        ("- {at_s: 1, node: n0, do: slow, factor: 0}", "factor"),
        ("- {at_s: 1, node: n0, do: slow, speed: 2}", "speed"),
        ("- {at_s: .nan, node: n0, do: kill}", "at_s"),
        ("at_s: 1", "array"),
        ("- {at_s: 1,\n  node: [", "faults.yaml:2: not YAML or JSON"),
        ("!!python/object:os.system {}", "not YAML or JSON"),
    ],
)
def test_bad_fault_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        faults(tmp_path, text)
