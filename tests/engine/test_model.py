from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.reference import Reference

from penstock.engine.model import Engine
from penstock.engine.sequence import Ended, Outcome, Sequence, Started
from penstock.facts import Profile


def profile(**changes: float) -> Profile:
    base = {"c0_s": 0.01, "c1_s": 1e-3, "c2_s": 1e-6, "c3_s": 1e-5, "kv_tokens": 8_192, "chunk_tokens": 600, "max_sequences": 6}
    return Profile(name="test", source="test", **{**base, **changes})  # type: ignore[arg-type]


def chain(family: int, tokens: int) -> tuple[int, ...]:
    return tuple(family * 1_000 + index for index in range(tokens // 512))


profiles = st.builds(
    profile,
    kv_tokens=st.sampled_from([1_024, 2_048, 4_096, 8_192]),
    cache_tokens=st.sampled_from([0, 0, 1_024, 4_096]),
    chunk_tokens=st.sampled_from([64, 256, 600, 2_048]),
    max_sequences=st.integers(1, 8),
    page_tokens=st.sampled_from([1, 16, 64]),
    c2_s=st.sampled_from([0.0, 1e-6]),
)
calls = st.lists(
    st.tuples(
        st.floats(0.0, 3.0).map(lambda gap: 0.0 if gap < 1.0 else (gap - 1.0) ** 3),
        st.one_of(st.integers(1, 40), st.integers(500, 1_600)),
        st.integers(1, 300),
        st.integers(0, 2),
        st.one_of(st.none(), st.none(), st.floats(0.0, 4.0)),
    ),
    min_size=1,
    max_size=14,
)


Rows = list[tuple[float, int, int, int, float | None]]


class Script:
    """Submissions and cancellations in order of time."""

    def __init__(self, rows: Rows) -> None:
        now = 0.0
        self.acts: list[tuple[float, int, Sequence | None]] = []
        for id, (gap, prompt, output, family, patience) in enumerate(rows):
            now += gap
            self.acts.append((now, id, Sequence(id, prompt, output, chain(family, prompt))))
            if patience is not None:
                self.acts.append((now + patience, id, None))
        self.acts.sort(key=lambda act: act[0])
        self.cancelled = {id for _, id, sequence in self.acts if sequence is None}

    def on(self, engine: Engine, stops: list[float] | None = None) -> list[Outcome]:
        """Run it to the end, advancing to each deadline; or, beside the script's own times, only to `stops`."""
        outcomes: list[Outcome] = []
        acts, at = list(self.acts), 0
        marks = sorted(stops or [])
        while at < len(acts) or marks or engine.deadline < inf:
            due = acts[at][0] if at < len(acts) else inf
            mark = marks[0] if marks else (engine.deadline if stops is None or due == inf else inf)
            if stops is None:
                mark = engine.deadline
            if mark <= due:
                marks = marks[1:]
                outcomes += engine.advance(mark)
                continue
            _, id, sequence = acts[at]
            at += 1
            if sequence is None:
                engine.cancel(id, due)
            else:
                engine.submit(sequence, due)
        return outcomes

    def on_reference(self, slow: Reference) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for due, id, sequence in self.acts:
            outcomes += slow.advance(due)
            if sequence is None:
                slow.cancel(id)
            else:
                outcomes += slow.submit(sequence, due)
        return outcomes + slow.advance(1e9)


@given(profiles, calls)
def test_leaps_give_what_single_steps_give(profile: Profile, rows: Rows) -> None:
    script, engine, slow = Script(rows), Engine(profile), Reference(profile)
    fast, expected = script.on(engine), script.on_reference(slow)
    assert [(type(one), one.id) for one in fast] == [(type(one), one.id) for one in expected]
    for got, want in zip(fast, expected, strict=True):
        assert got.at == pytest.approx(want.at, rel=1e-9)
        assert getattr(got, "cached_tokens", 0) == getattr(want, "cached_tokens", 0)
    assert (engine.preempted, engine.hit_tokens) == (slow.preempted, slow.hits)
    assert engine.progress(1e9)[0] == slow.tokens
    assert engine.steps(1e9) == slow.steps


@given(profiles, calls)
def test_every_sequence_starts_and_ends_once_in_order_of_time(profile: Profile, rows: Rows) -> None:
    script, engine = Script(rows), Engine(profile)
    outcomes = script.on(engine)
    assert [one.at for one in outcomes] == sorted(one.at for one in outcomes)
    ended = [one.id for one in outcomes if isinstance(one, Ended)]
    started = [one.id for one in outcomes if isinstance(one, Started)]
    assert len(set(ended)) == len(ended)
    assert len(set(started)) == len(started)
    assert set(range(len(rows))) - script.cancelled <= set(ended)
    for one in outcomes:
        if isinstance(one, Ended):
            assert one.refused or (one.id in started and one.output_tokens == rows[one.id][2])
        else:
            assert one.cached_tokens < rows[one.id][1]
            assert one.cached_tokens % 512 == 0


@given(profiles, calls, st.lists(st.floats(0.0, 6.0), max_size=30))
def test_it_does_not_matter_how_often_it_is_advanced(profile: Profile, rows: Rows, stops: list[float]) -> None:
    script, one, other = Script(rows), Engine(profile), Engine(profile)
    assert script.on(one) == script.on(other, stops)
    assert one.progress(1e9) == other.progress(1e9)
    assert one.busy_s(1e9) == other.busy_s(1e9)
    assert one.itl.buckets == other.itl.buckets


@given(profiles, calls, st.lists(st.floats(0.0, 6.0), max_size=30))
def test_memory_stays_within_the_pool_and_is_free_at_the_end(profile: Profile, rows: Rows, stops: list[float]) -> None:
    engine = Engine(profile)
    script = Script(rows)
    looks = sorted([*stops, *(act[0] for act in script.acts)])
    acts = list(script.acts)
    before = 0, 0.0
    for now in looks:
        engine.advance(now)
        while acts and acts[0][0] <= now:
            at, id, sequence = acts.pop(0)
            if sequence is None:
                engine.cancel(id, at)
            else:
                engine.submit(sequence, at)
        assert 0 <= engine.kv_used_tokens <= profile.kv_tokens
        assert engine.running <= profile.max_sequences
        assert engine.step_deadline(now) >= now
        after = engine.progress(now)
        assert after >= before or after[0] >= before[0]
        assert after[1] >= before[1] - 1e-9
        assert engine.busy_s(now) <= now + 1e-9
        before = after
    while engine.deadline < inf:
        engine.advance(engine.deadline)
    assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
    assert engine.memory.available == engine.memory.pages


@given(profiles, calls, st.floats(0.0, 6.0))
def test_cancelling_everything_frees_everything_at_once(profile: Profile, rows: Rows, when: float) -> None:
    engine = Engine(profile)
    for id, (_, prompt, output, family, _) in enumerate(rows):
        engine.submit(Sequence(id, prompt, output, chain(family, prompt)), 0.0)
    engine.advance(when)
    for id in range(len(rows)):
        engine.cancel(id, when)
    assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
    assert engine.advance(1e9) == []
    assert engine.deadline == inf


@given(profiles, calls)
def test_emitted_counts_agree_with_the_outcomes(profile: Profile, rows: Rows) -> None:
    engine = Engine(profile)
    for id, (_, prompt, output, family, _) in enumerate(rows):
        engine.submit(Sequence(id, prompt, output, chain(family, prompt)), 0.0)
    counts = dict.fromkeys(range(len(rows)), 0)
    started: set[int] = set()
    now = 0.0
    while engine.deadline < inf:
        now = engine.step_deadline(now) if engine.deadline > now else engine.deadline
        for outcome in engine.advance(now):
            if isinstance(outcome, Started):
                assert counts[outcome.id] == 0
                started.add(outcome.id)
            else:
                assert outcome.refused or counts[outcome.id] in (0, outcome.output_tokens - 1)
                counts[outcome.id] = -1
        for id, count in counts.items():
            if count >= 0:
                emitted = engine.emitted(id, now)
                assert emitted - count in (0, 1)
                assert (emitted > 0) == (id in started)
                counts[id] = emitted
    assert set(counts.values()) == {-1}


def test_a_lone_sequence_takes_prefill_and_steps_in_closed_form() -> None:
    engine = Engine(profile(chunk_tokens=600))
    engine.submit(Sequence(1, 1_500, 101), 2.0)
    started, ended = engine.advance(100.0)
    assert started.at == pytest.approx(2.0 + 3 * 0.01 + 1_500 * 1e-5)
    context = sum(1_500 + token for token in range(1, 101))
    assert ended.at == pytest.approx(started.at + 100 * 0.011 + context * 1e-6)
    assert engine.itl.count == 100
    assert engine.itl.mean() == pytest.approx((ended.at - started.at) / 100)
    assert engine.itl.quantile(0.5) == pytest.approx(0.01255, rel=0.03)


def test_a_late_sequence_joins_after_the_step_in_progress() -> None:
    engine = Engine(profile(c2_s=0.0))
    engine.submit(Sequence(1, 100, 50), 0.0)
    engine.submit(Sequence(2, 100, 1), 0.015)  # in the middle of the first decoding step: 0.011 to 0.022
    assert [(one.id, one.at) for one in engine.advance(0.05)] == [(1, 0.011), (2, pytest.approx(0.034)), (2, pytest.approx(0.034))]


def test_a_sequence_that_can_never_fit_is_refused_and_the_rest_goes_on() -> None:
    engine = Engine(profile(kv_tokens=1_024))
    engine.submit(Sequence(1, 1_000, 26), 0.0)
    engine.submit(Sequence(2, 1_000, 25), 0.0)
    assert engine.deadline == 0.0
    refused, *rest = engine.advance(100.0)
    assert refused == Ended(1, 0.0, 0)
    assert [(type(one), one.id) for one in rest] == [(Started, 2), (Ended, 2)]


@pytest.mark.parametrize("cache_tokens", [0, 4_096])
def test_a_prompt_cached_in_full_still_computes_its_last_block(cache_tokens: int) -> None:
    engine = Engine(profile(cache_tokens=cache_tokens))
    for id in (1, 2):
        engine.submit(Sequence(id, 1_536, 1, chain(1, 1_536)), 10.0 * id)
    first, _, second, _ = engine.advance(100.0)
    assert isinstance(first, Started)
    assert isinstance(second, Started)
    assert (first.cached_tokens, second.cached_tokens) == (0, 1_024)


def test_blocks_in_the_free_part_of_the_pool_give_way_to_running_sequences() -> None:
    engine = Engine(profile(kv_tokens=2_048))
    engine.submit(Sequence(1, 1_024, 1, chain(1, 1_024)), 0.0)
    engine.submit(Sequence(2, 1_536, 1, chain(2, 1_536)), 10.0)  # takes the pages of 1's second block
    engine.submit(Sequence(3, 1_024, 1, chain(1, 1_024)), 20.0)
    started = [one for one in engine.advance(100.0) if isinstance(one, Started)]
    assert [one.cached_tokens for one in started] == [0, 0, 512]


def test_running_sequences_share_the_memory_of_equal_blocks() -> None:
    engine = Engine(profile())
    engine.submit(Sequence(1, 1_024, 200, chain(1, 1_024)), 0.0)
    engine.advance(1.0)
    alone = engine.kv_used_tokens
    engine.submit(Sequence(2, 1_040, 200, chain(1, 1_024)), 1.0)
    engine.advance(1.1)
    assert engine.kv_used_tokens - alone <= 64


def test_the_newest_gives_way_when_memory_runs_out() -> None:
    engine = Engine(profile(kv_tokens=1_024, c2_s=0.0))
    engine.submit(Sequence(1, 400, 300), 0.0)
    engine.submit(Sequence(2, 400, 300), 0.0)
    outcomes = engine.advance(100.0)
    assert engine.preempted == 1
    assert [(type(one), one.id) for one in outcomes] == [(Started, 1), (Started, 2), (Ended, 1), (Ended, 2)]
    assert engine.progress(100.0)[0] == 2 * 299
    assert engine.itl.quantile(1.0) > 1.0  # the second caller's silence counts as time between tokens


def test_long_prompts_share_each_step_with_decoding() -> None:
    engine = Engine(profile(kv_tokens=100_000, c2_s=0.0))
    engine.submit(Sequence(1, 10, 1_000), 0.0)
    engine.submit(Sequence(2, 60_000, 1), 0.001)
    started = [one for one in engine.advance(2.0) if isinstance(one, Started)]
    assert len(started) == 2
    lasted = started[1].at - started[0].at
    assert engine.emitted(1, started[1].at) == 101
    assert lasted == pytest.approx(100 * (0.01 + 0.001 + 600 * 1e-5))


def test_sizes_that_cannot_work_are_refused() -> None:
    for wrong in ({"page_tokens": 24}, {"kv_tokens": 8}, {"chunk_tokens": 0}, {"max_sequences": 0}):
        with pytest.raises(ValueError, match="must"):
            Engine(profile(**wrong))
