from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.decoding import Decoding
from penstock.engine.sequence import Run, Sequence

runs = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 200)), min_size=1, max_size=8)


def batch(rows: list[tuple[int, int]], page: int, steps: int) -> tuple[Decoding, list[Run]]:
    decoding, made = Decoding(page), []
    for serial, (prompt, output) in enumerate(rows):
        run = Run(Sequence(serial, prompt, output), serial)
        run.began = steps
        decoding.add(run, steps + output)
        made.append(run)
    return decoding, made


@given(runs, st.sampled_from([1, 16, 64]), st.integers(0, 500), st.integers(0, 200))
def test_pages_are_those_that_the_runs_count_one_by_one(rows: list[tuple[int, int]], page: int, steps: int, ahead: int) -> None:
    decoding, made = batch(rows, page, steps)
    held = [[-(-run.slots(steps + step) // page) for run in made] for step in range(ahead + 1)]
    assert decoding.pages(steps, ahead) == sum(held[-1]) - sum(held[0])
    assert decoding.next_pages(steps) == decoding.pages(steps, 1)
    available = decoding.pages(steps, ahead) - 1
    fit = decoding.steps_with_room(steps, ahead, max(0, available))
    assert fit == ahead or decoding.pages(steps, fit) <= max(0, available) < decoding.pages(steps, fit + 1)


@given(runs)
def test_runs_end_when_their_last_token_is_out_and_leave_nothing(rows: list[tuple[int, int]]) -> None:
    decoding, made = batch(rows, 16, 7)
    made[0].gone = True
    decoding.remove(made[0], 7)
    steps, seen = 7, []
    while ahead := decoding.steps_to_end(steps):
        decoding.context += decoding.count * ahead
        steps += ahead
        for run in decoding.ended(steps):
            decoding.remove(run, steps)
            seen.append(run.id)
    assert sorted(seen) == [run.id for run in made[1:]]
    assert (decoding.count, decoding.context, decoding.pages(steps, 100)) == (0, 0, 0)
