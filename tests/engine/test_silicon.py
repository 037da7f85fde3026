"""The model against measured engines: fitted to one half of the points, played on the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engine.fit import Point, errors, fit, main, profile, read, report


@pytest.fixture(scope="module")
def measured(data: Path) -> list[Point]:
    file = data / "silicon_sample.csv.gz"
    if not file.is_file():
        pytest.skip(f"no silicon_sample.csv.gz in {data}; set PENSTOCK_DATA")
    return read(str(file))


@pytest.mark.parametrize("half", [0, 1])
def test_held_out_deepseek_points_are_played_within_a_tenth(measured: list[Point], half: int) -> None:
    train, test = measured[half::2], measured[1 - half :: 2]
    assert not set(train) & set(test)
    assert len(measured) == 15
    print(report(train, test))
    tpot_error, _ = errors(fit(train), test)
    assert tpot_error < 0.10


def test_a_fit_finds_the_constants_that_made_the_points() -> None:
    truth = 0.008, 0.0003, 2e-8, 4e-5
    made = [
        Point(prompt, output, batch, 0.1, truth[0] + batch * (truth[1] + truth[2] * (prompt + output / 2) + truth[3] * prompt / output))
        for prompt, output, batch in ((1_024, 1_024, 4), (1_024, 8_192, 64), (8_192, 1_024, 16), (4_096, 512, 32), (1_024, 1_024, 64))
    ]
    assert fit(made) == pytest.approx(truth, rel=1e-6)
    assert min(fit(made[:1])) >= 0.0
    assert profile(truth).c3_s == truth[3]


def test_the_command_prints_both_halves(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(data / "silicon_sample.csv.gz"), "deepseek-ai/DeepSeek-V3"])
    assert capsys.readouterr().out.count("mean absolute error: TPOT") == 2
