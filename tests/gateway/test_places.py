"""Who gets the places that durable jobs have in the core."""

from __future__ import annotations

from penstock.gateway.job import Job
from penstock.gateway.places import Places


def job(id: str, model: str = "m", batch: str | None = None) -> Job:
    return Job(id, "a", "chat", model, "", "r", 0.0, 1e9, batch)


def filled(places: Places) -> list[str]:
    found = []
    while (one := places.next()) is not None:
        found.append(one.id)
    return found


def test_a_quarter_is_kept_for_jobs_of_no_batch() -> None:
    places = Places(4, lambda model: True)
    for n in range(5):
        places.put(job(f"b{n}", batch="b"))
    assert filled(places) == ["b0", "b1", "b2"]
    for n in range(2):
        places.put(job(f"t{n}"))
    assert filled(places) == ["t0"]
    places.free(places.running["b0"])
    assert filled(places) == ["t1"]
    places.free(places.running["t0"])
    assert filled(places) == ["b3"]


def test_one_place_serves_batches_too() -> None:
    places = Places(1, lambda model: True)
    places.put(job("b", batch="b"))
    assert filled(places) == ["b"]
    assert places.free(places.running["b"])
    assert not places.free(job("b"))


def test_a_model_that_is_down_leaves_places_to_the_others() -> None:
    up = {"good"}
    places = Places(4, lambda model: model in up)
    for n in range(5):
        places.put(job(f"d{n}", model="down"))
    assert filled(places) == ["d0", "d1", "d2"]
    places.put(job("g", model="good"))
    assert filled(places) == ["g"]
    up.add("down")
    places.free(places.running["g"])
    assert filled(places) == ["d3"]


def test_who_waits_has_a_place_in_line() -> None:
    places = Places(1, lambda model: True)
    jobs = [job(str(n)) for n in range(4)]
    for one in jobs:
        places.put(one)
    assert filled(places) == ["0"]
    assert [places.ahead(one) for one in jobs[1:]] == [1, 2, 3]
    jobs[1].ended = True
    places.drop(jobs[1])
    assert places.free(jobs[0])
    assert filled(places) == ["2"]
