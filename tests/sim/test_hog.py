"""One tenant at many times its rate."""

from __future__ import annotations

import pytest
from tests.sim.fleet import world

from penstock.errors import TraceError
from penstock.sim.arrival import Arrival
from penstock.sim.hog import Hog, effect, grown, parse, sentence

ARRIVALS = [Arrival(float(at), 100, 5, blocks=(1, 2), tenant="ab"[at % 2], session=f"s{at}") for at in range(20)]


def test_the_tenant_s_rate_is_multiplied_and_the_others_stay_as_they_are() -> None:
    made = grown(ARRIVALS, Hog("a", 10))
    assert [one for one in made if one.tenant == "b"] == [one for one in ARRIVALS if one.tenant == "b"]
    own = [one for one in made if one.tenant == "a"]
    assert len(own) == 100 and max(one.at_s for one in own) <= 19.0
    assert made == sorted(made, key=lambda one: one.at_s)
    assert len({one.blocks for one in own}) == 10, "each round has prompts of its own"
    assert len({one.session for one in own}) == 100


@pytest.mark.parametrize("text", ["a", "a:1", "a:x", "a:2.5", ":5", "a:inf", "c:10", "a:99999", "a:10@", "a:10@-1", "a:10@x"])
def test_wrong_wish_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(TraceError, match="--hog"):
        parse(text, {"a", "b"})


def test_names_may_hold_a_colon() -> None:
    assert parse("team:x:100", {"team:x"}) == Hog("team:x", 100)


def test_one_that_begins_later_asks_for_no_more_before() -> None:
    hog = parse("a:10@12", {"a"})
    assert hog == Hog("a", 10, 12.0)
    made = grown(ARRIVALS, hog)
    assert [one for one in made if one.at_s < 12.0] == [one for one in ARRIVALS if one.at_s < 12.0]
    assert sum(one.tenant == "a" and one.at_s >= 12.0 for one in made) > 30
    result = effect(world(ARRIVALS), world(made), hog)
    assert result["others"]["requests"] == sum(one.tenant == "b" and one.at_s >= 12.0 for one in ARRIVALS)


def test_effect_is_the_others_p99_over_what_it_was() -> None:
    hog = Hog("a", 3)
    before, after = world(ARRIVALS), world(grown(ARRIVALS, hog))
    result = effect(before, after, hog)
    assert result["others"]["requests"] == result["others_beside_it"]["requests"] == 10
    assert result["p99"] == pytest.approx(result["others_beside_it"]["ttft_s"]["p99"] / result["others"]["ttft_s"]["p99"], abs=1e-6)
    assert "beside a at 3 times its rate" in sentence("x", result)
