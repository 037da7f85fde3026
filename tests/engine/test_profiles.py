from __future__ import annotations

import pytest

from penstock.engine import profiles
from penstock.engine.model import Engine
from penstock.errors import ConfigError


@pytest.mark.parametrize("name", profiles.names())
def test_each_profile_names_its_source_and_makes_an_engine(name: str) -> None:
    profile = profiles.load(name)
    assert profile.name == name
    assert len(profile.source) > 40
    assert Engine(profile).memory.pages > 500
    assert 4_000 < 1 / profile.c3_s < 100_000


def test_the_profiles_that_are_promised_are_there() -> None:
    promised = {"mooncake-demo", "deepseek-v3-h200-tp8", "llama-70b-h100-tp8", "qwen3-32b-h100-tp2", "llama-70b-a800-tp8"}
    assert promised <= set(profiles.names())


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no profile 'abacus'; there are mooncake-demo, "):
        profiles.load("abacus")
