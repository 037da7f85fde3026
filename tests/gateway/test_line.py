"""The order in which durable jobs go to the core."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.job import Job
from penstock.gateway.line import Line


def job(id: str, tenant: str = "a", model: str = "m") -> Job:
    return Job(id, tenant, "chat", model, "", "r", 0.0, 1e9)


def anything(job: Job) -> bool:
    return True


def taken(line: Line) -> list[str]:
    found = []
    while (one := line.take(anything)) is not None:
        found.append(one.id)
    return found


def test_one_tenants_jobs_go_in_their_order() -> None:
    line = Line()
    for n in range(5):
        line.put(job(str(n)))
    assert taken(line) == list("01234")


def test_tenants_take_turns() -> None:
    line = Line()
    for n in range(4):
        line.put(job(f"a{n}", "a"))
    line.put(job("b0", "b"))
    line.put(job("c0", "c"))
    assert taken(line) == ["a0", "b0", "c0", "a1", "a2", "a3"]


def test_a_model_that_may_not_go_does_not_stop_the_others() -> None:
    line = Line()
    line.put(job("0", model="dead"))
    line.put(job("1", model="good"))
    one = line.take(lambda job: job.model == "good")
    assert one is not None and one.id == "1"
    assert line.take(lambda job: job.model == "good") is None
    assert taken(line) == ["0"]


def test_a_place_counts_those_who_go_before() -> None:
    line = Line()
    jobs = [job(f"a{n}", "a") for n in range(4)]
    other = job("b0", "b")
    for one in (*jobs, other):
        line.put(one)
    assert [line.place(one) for one in jobs] == [2, 3, 4, 5]
    assert line.place(other) == 2
    line.take(anything)
    assert line.place(jobs[1]) == 2


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "end"]), st.integers(0, 3), st.integers(0, 200)), max_size=300))
def test_each_job_that_did_not_end_is_taken_once_and_nothing_piles_up(steps: list[tuple[str, int, int]]) -> None:
    line, waiting, given_out, number = Line(), [], [], 0
    for what, tenant, index in steps:
        if what == "put":
            number += 1
            waiting.append(job(str(number), str(tenant)))
            line.put(waiting[-1])
        elif what == "take":
            if (one := line.take(anything)) is not None:
                given_out.append(one)
                waiting.remove(one)
        elif waiting:
            one = waiting.pop(index % len(waiting))
            one.ended = True
            line.drop(one)
        assert all(1 <= line.place(one) <= number + 4 for one in waiting)
        for tenant_name in {one.tenant for one in waiting}:
            own = [one for one in waiting if one.tenant == tenant_name]
            assert len(line._rows[(tenant_name, "m")].jobs) <= 2 * len(own) + 66
    assert sorted(taken(line)) == sorted(one.id for one in waiting)
    assert len({one.id for one in given_out}) == len(given_out)
