"""What a good answer is."""

from __future__ import annotations

from penstock.sim.slo import Slo


def test_nothing_asked_is_always_met() -> None:
    assert Slo().met(10_000, 1e9, 1e9)
    assert not Slo().set
    assert Slo().text() == "completed"


def test_deadline_grows_with_the_prompt() -> None:
    slo = Slo(ttft_s=2.0, ttft_per_1k_s=0.25)
    assert slo.met(4_000, 3.0, None)
    assert not slo.met(4_000, 3.001, None)
    assert slo.text() == "first token within 2 s + 0.25 s per 1,000 prompt tokens"


def test_one_token_answers_have_no_time_between_tokens() -> None:
    slo = Slo(tpot_s=0.1)
    assert slo.set
    assert slo.met(1, 50.0, None)
    assert slo.met(1, 50.0, 0.1)
    assert not slo.met(1, 0.0, 0.11)
