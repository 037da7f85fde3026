"""What is predicted before a request may wait, and what a refused one is told."""

from __future__ import annotations

import itertools
import random
from math import inf

import msgspec
import pytest
from tests.playbook import call, flying

from penstock import config
from penstock.core.admission import GUESS_PER_S, HASTE, RETRY_LEAST_S, RETRY_MOST_S, Admission, full
from penstock.core.answers import FIRST
from penstock.core.bands import Bands
from penstock.core.classify import DEFAULT, TaskClass
from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.returns import SHARE, SHOW_FIRST
from penstock.core.route import Choice
from penstock.facts import Outcome
from penstock.knobs import Knobs

KNOBS = Knobs(margin=0.0, queue_max=10)
BASE_S = 0.02


def admission(seed: int = 1, policy: str = "slo", knobs: Knobs = KNOBS) -> Admission:
    return Admission(config.Policy(admit=policy), knobs, random.Random(seed))


def lane(count: int = 1, backlog_s: float = -inf) -> Lane:
    nodes = [Node(index, config.Node(name=f"n{index}", url="http://127.0.0.1:9"), Knobs(), None) for index in range(count)]
    for node in nodes:
        node.free_at = backlog_s
    return Lane("m", nodes)


def flight(among: Lane, id: int = 1, own_s: float = 1.0, due: float = inf, priority: int = 3, tokens: int = 1_000) -> Flight:
    return flying(call(id, tokens=tokens), DEFAULT, among, 0.0, due=due, key=min(due, 1e9), own_s=own_s, priority=priority)


def choice(among: Lane, ready_s: float, uncached: int = 1_000) -> Choice:
    return Choice(among.nodes[0], uncached, uncached, 0.0, ready_s)


def test_prefill_is_estimated_without_what_the_chosen_node_has_cached() -> None:
    among = lane()
    one = flight(among, tokens=8_000)
    admission().estimate(one, choice(among, 0.0, uncached=800))
    assert one.own_s == pytest.approx(0.1)


def test_prefill_is_estimated_whole_while_no_node_has_a_slot() -> None:
    one = flight(lane(), tokens=8_000)
    admission().estimate(one, None)
    assert one.own_s == pytest.approx(1.0)


def test_nothing_waits_before_an_idle_fleet() -> None:
    assert admission().wait_s(lane(2), 0, 0.0, 5.0) == 0.0


def test_wait_is_the_backlog_of_the_nodes_and_then_the_work_ahead_shared_among_them() -> None:
    assert admission().wait_s(lane(2, backlog_s=6.0), 3, 4.0, now=5.0) == pytest.approx(1.0 + 4.0 / 2)


def test_small_work_waits_for_no_node_that_is_busy_for_long() -> None:
    among = lane(2)
    among.nodes[0].free_at = 60.0
    assert admission().wait_s(among, 1, 0.5, 5.0) == pytest.approx(0.5)
    assert admission().wait_s(among, 200, 75.0, 5.0) == pytest.approx(55.0 + 20.0 / 2)


def test_paced_node_supplies_its_share() -> None:
    among = lane(2, backlog_s=5.0)
    among.nodes[0].share = 0.5
    assert admission().wait_s(among, 1, 3.0, 5.0) == pytest.approx(2.0)


def test_nodes_that_are_not_up_supply_nothing() -> None:
    among = lane(2, backlog_s=9.0)
    among.nodes[0].state = "lost"
    assert admission().wait_s(among, 1, 2.0, 5.0) == 6.0
    among.nodes[1].state = "draining"
    assert admission().supply(among, 5.0).rate == 0.0 and admission().wait_s(among, 5, 10.0, 5.0) == 0.0


def test_nodes_are_full_whose_streams_leave_little_time_for_prompts() -> None:
    among = lane(2)
    assert not full(among)
    for node in among.nodes:
        node.share = 0.3
    assert full(among)


def test_while_slots_are_full_the_wait_is_as_long_as_answers_take_to_end() -> None:
    among = lane()
    among.drain_s = 2.0
    assert admission().wait_s(among, 4, 1.0, 0.0) == pytest.approx(1.0), "slots are free: prefill is what takes time"
    among.blocked = True
    assert admission().wait_s(among, 4, 1.0, 0.0) == pytest.approx(10.0)
    assert admission().wait_s(among, 4, 30.0, 0.0) == pytest.approx(30.0)
    among.drain_s = 0.0
    assert admission().wait_s(among, 4, 1.0, 0.0) == pytest.approx(1.0), "how fast they end is not known yet"


@pytest.mark.parametrize(("due", "outcome"), [(1.1, None), (0.9, Outcome.REFUSED_DEADLINE)])
def test_first_in_line_is_judged_by_its_node(due: float, outcome: Outcome | None) -> None:
    among = lane(backlog_s=50.0)
    assert admission().refusal(flight(among, due=due), choice(among, 1.0), 0.0) is outcome


def test_margin_is_kept_to_the_deadline() -> None:
    among = lane()
    one = flight(among, due=1.1)
    assert admission(knobs=Knobs(margin=0.05)).refusal(one, choice(among, 1.0), 0.0) is None
    assert admission(knobs=Knobs(margin=0.2)).refusal(one, choice(among, 1.0), 0.0) is Outcome.REFUSED_DEADLINE


@pytest.mark.parametrize(("spare", "outcome"), [(0.1, None), (-0.1, Outcome.REFUSED_DEADLINE)])
def test_one_behind_others_is_judged_by_the_work_ahead_whatever_its_node(spare: float, outcome: Outcome | None) -> None:
    among = lane(backlog_s=2.0)
    among.queue.push(flight(among, 1, own_s=3.0, due=5.0))
    behind = flight(among, 2, own_s=1.0, due=2.0 + 3.0 + 1.0 + BASE_S + spare)
    assert admission().refusal(behind, choice(among, 0.1), 0.0) is outcome


def test_higher_priority_does_not_wait_for_lower() -> None:
    among = lane()
    among.queue.push(flight(among, 1, own_s=50.0, priority=1, due=100.0))
    assert admission().refusal(flight(among, 2, own_s=1.0, due=2.0, priority=2), None, 0.0) is None


@pytest.mark.parametrize(("own_s", "outcome"), [(1.5, None), (2.5, Outcome.REFUSED_DEADLINE)])
def test_promise_to_one_that_waits_is_not_broken(own_s: float, outcome: Outcome | None) -> None:
    among = lane()
    among.queue.push(flight(among, 1, due=2.0))
    before = flight(among, 2, own_s=own_s, due=9.0)
    before.key = 1.0
    assert admission().refusal(before, None, 0.0) is outcome


def test_without_a_deadline_no_promise_is_in_the_way() -> None:
    among = lane()
    among.queue.push(flight(among, 1, due=2.0))
    before = flight(among, 2, own_s=50.0)
    before.key = 1.0
    assert admission().refusal(before, None, 0.0) is None


def unfair(up: bool = True, ahead: int = 5) -> Lane:
    """Short prompts were admitted always, long ones, which have a second to wait, half of the time; one of priority `ahead` waits."""
    among = lane()
    among.nodes[0].state = "up" if up else "lost"
    bands = among.bands[3] = Bands()
    for count in range(10):
        bands.note(100, True, 3.0, 0.0)
        bands.note(50_000, count < 5, 1.0, 0.0)
    among.queue.push(flight(among, 1, own_s=0.5, priority=ahead))
    return among


@pytest.mark.parametrize(("own_s", "outcome"), [(0.4, None), (0.6, Outcome.REFUSED_DEADLINE)])
def test_length_served_well_yields_to_one_served_less(own_s: float, outcome: Outcome | None) -> None:
    among = unfair()
    assert admission().refusal(flight(among, 2, own_s=own_s, due=20.0, tokens=100), None, 0.0) is outcome


def test_nobody_yields_to_a_length_of_another_priority() -> None:
    among = unfair()
    assert admission().refusal(flight(among, 2, own_s=0.6, due=20.0, tokens=100, priority=4), None, 0.0) is None


def test_what_waits_of_a_lower_priority_leaves_room_for_the_length_served_less() -> None:
    among = unfair(ahead=1)
    assert admission().refusal(flight(among, 2, own_s=0.6, due=20.0, tokens=100), None, 0.0) is None


def test_a_tenant_with_the_most_urgent_work_leaves_no_room_for_others_less_urgent() -> None:
    def refused(others: int) -> bool:
        judge, among = admission(), lane()
        for id, (tenant, priority) in enumerate((("other", others), ("rich", 5))):
            waiting = flight(among, id, own_s=0.6, priority=priority)
            waiting.account = judge.books.account(tenant, 0.0)
            judge._claims(waiting)
        mine = flight(among, 9, own_s=0.5, due=1.5, priority=5)
        mine.account = judge.books.account("rich", 0.0)
        mine.account.rich, judge.books.others_s = True, 0.5
        among.queue.push(flight(among, 3, own_s=0.6, due=1.0, priority=5))
        return judge.refusal(mine, None, 0.0) is not None

    assert refused(others=5) and not refused(others=1)


def test_nobody_yields_while_no_node_is_up() -> None:
    among = unfair(up=False)
    assert admission().refusal(flight(among, 2, own_s=0.6, due=20.0, tokens=100), None, 0.0) is None


def test_full_queue_refuses_under_every_policy() -> None:
    among = lane()
    for id in range(10):
        among.queue.push(flight(among, id, own_s=0.0))
    for policy in ("slo", "bounded"):
        assert admission(policy=policy).refusal(flight(among, 99), None, 0.0) is Outcome.REFUSED_FULL


def offered(among: Lane) -> float:
    return sum(sum(bands.offered) for bands in among.bands.values())


def admitted(among: Lane) -> float:
    return sum(sum(bands.admitted) for bands in among.bands.values())


def test_lengths_are_counted_only_where_something_waits_or_is_refused() -> None:
    among = lane()
    admission().refusal(flight(among, due=50.0), choice(among, 0.1), 0.0)
    assert offered(among) == 0
    admission().refusal(flight(among, due=5.0), choice(among, 9.0), 0.0)
    assert (offered(among), admitted(among)) == (1, 0)
    among.queue.push(flight(among, 2, own_s=0.0))
    admission().refusal(flight(among, 3, due=50.0), choice(among, 0.1), 0.0)
    assert (offered(among), admitted(among)) == (2, 1)


@pytest.mark.parametrize("due", [1.9, inf])
def test_one_that_needs_most_of_its_own_time_or_has_no_deadline_is_not_counted(due: float) -> None:
    among = lane()
    among.queue.push(flight(among, 1, own_s=0.0))
    admission().refusal(flight(among, 2, own_s=1.0, due=due), None, 0.0)
    assert offered(among) == 0


def waited(ahead_s: float, due: float = inf) -> float:
    """Retry-after of the first that is refused, without own work and behind `ahead_s` seconds of it."""
    among = lane()
    among.queue.push(flight(among, 1, own_s=ahead_s, priority=5))
    return admission().retry_after_s(flight(among, 2, own_s=0.0, due=due), 0.0)


def test_retry_comes_when_the_work_ahead_is_done() -> None:
    assert waited(20.0) == pytest.approx(20.0, rel=0.05)


def test_retry_comes_sooner_for_one_that_may_wait() -> None:
    assert waited(20.0, due=30.0) == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize("ahead_s", [0.0, 1.0, 100.0, 1e6])
def test_retry_stays_in_its_bounds(ahead_s: float) -> None:
    among = lane(backlog_s=ahead_s)
    for seed in range(50):
        assert RETRY_LEAST_S <= admission(seed).retry_after_s(flight(among, own_s=0.0), 0.0) <= RETRY_MOST_S


def test_retries_of_a_refused_crowd_come_one_after_the_other_at_the_rate_the_nodes_can_take() -> None:
    among, one = lane(backlog_s=20.0), admission()
    told = [one.retry_after_s(flight(among, id, own_s=0.0), 0.0) for id in range(100)]
    gaps = [later - sooner for sooner, later in itertools.pairwise(told)]
    assert told[0] == pytest.approx(20.0, rel=0.05)
    assert sum(gaps) / len(gaps) == pytest.approx(SHOW_FIRST / (SHARE * GUESS_PER_S), rel=0.1)
    assert max(gaps) <= 2 * SHOW_FIRST / (SHARE * GUESS_PER_S)


def test_who_comes_back_when_told_may_use_the_room_that_newcomers_leave() -> None:
    among = lane(backlog_s=2.0)
    among.returns.refuse(("", "default"), 1.0, 1.0, 0.0, random.Random(1))
    among.returns.every.came = 1.0
    newcomer, returned = flight(among, 1, own_s=0.1, due=2.5), flight(among, 2, own_s=0.1, due=2.5)
    returned.returns = True
    assert admission().refusal(newcomer, None, 0.0) is Outcome.REFUSED_DEADLINE
    assert admission().refusal(returned, None, 0.0) is None


def learned(recent_s: float, beside: float = 8.0, *, starting: bool = False) -> Lane:
    """A lane of one node of which only ends were seen."""
    among = lane()
    found = among.nodes[0].concurrency
    assert found is not None
    found.recent_s = found.base_s = recent_s
    found.beside, found.starting, found.rules = beside, starting, True
    among.nodes[0].limit = found.limit
    return among


def whole(among: Lane, total_s: float, *, patient: bool = False) -> Flight:
    """A request with a deadline for the whole answer, after it was estimated."""
    made = flight(among, own_s=0.0, tokens=10)
    made.task = TaskClass("whole", 3, total_s=total_s)
    made.request = msgspec.structs.replace(made.request, patient=patient)
    admission().estimate(made, None)
    return made


def test_whole_answer_is_begun_in_time_for_most_and_at_the_latest_for_a_fair_share() -> None:
    made = whole(learned(1.0), 3.0)
    middle, high = FIRST
    assert made.ends == 3.0
    assert made.due == pytest.approx(3.0 - high + made.own_s) and made.grace_s == pytest.approx(high - middle)


def test_whole_answer_that_takes_nearly_all_its_time_may_still_begin_soon() -> None:
    made = whole(learned(2.4), 3.0)
    assert made.due - made.own_s == pytest.approx(HASTE * 3.0)
    assert made.due + made.grace_s > made.due


def test_whole_answer_that_takes_longer_than_it_may_is_due_before_it_came() -> None:
    assert whole(learned(6.0), 3.0).due < 0.0


def test_durable_job_has_no_time_for_its_answer() -> None:
    assert whole(learned(1.0), 3.0, patient=True).ends == inf


def test_wait_is_what_is_ahead_over_the_rate_at_which_answers_end() -> None:
    assert admission().wait_s(learned(0.5), 31, 0.0, 0.0) == pytest.approx(32 * 0.5 / 8)


def test_wait_for_new_nodes_grows_with_the_logarithm_of_what_is_ahead() -> None:
    new, old = learned(0.5, starting=True), learned(0.5)
    assert admission().wait_s(new, 0, 0.0, 0.0) == pytest.approx(admission().wait_s(old, 0, 0.0, 0.0), rel=0.1)
    assert admission().wait_s(new, 500, 0.0, 0.0) < 0.2 * admission().wait_s(old, 500, 0.0, 0.0)


def test_place_is_told_by_how_the_queue_drains_once_it_does() -> None:
    among = lane(backlog_s=7.0)
    waiting = flight(among, own_s=0.0)
    assert admission().eta_s(waiting, 1, 0.0, 0.0) == pytest.approx(7.0)
    among.drain.waits(True, 0.0)
    for count in range(100):
        among.drain.departed(waiting, True, count * 0.1)
    among.drain.first_token(0.5)
    for id in range(20):
        last = flight(among, id, own_s=0.0)
        last.key = float(id)
        among.queue.push(last)
    assert admission().eta_s(last, 20, 0.0, 10.0) == pytest.approx(2.5, rel=0.1)


def test_class_is_promised_what_others_leave() -> None:
    among, one = learned(0.5), admission()
    waiting = flight(among, own_s=0.0)
    for count in range(400):
        among.drain.forwarded(Flight(call(2), TaskClass("other", 3), among, 0.0), count * 0.1)
    told = [one.retry_after_s(waiting, 40.0) for _ in range(100)]
    left = 8 / 0.5 - 10.0
    assert (told[-1] - told[0]) / 99 == pytest.approx(SHOW_FIRST / (SHARE * left), rel=0.1)
    among.nodes[0].state = "lost"
    assert one.retry_after_s(waiting, 40.0, Outcome.UNAVAILABLE) <= RETRY_MOST_S


def test_long_line_helps_nobody_while_most_are_refused() -> None:
    among = learned(0.2, beside=1.0)
    for id in range(50):
        among.queue.push(flight(among, id, own_s=0.0))
    early, late = whole(among, 20.0), whole(among, 20.0)
    one = admission(knobs=Knobs(margin=0.0, queue_max=100))
    assert one.refusal(early, None, 0.0) is None
    for _ in range(200):
        among.pressure.note(True, 0.0)
    assert one.refusal(late, None, 0.0) is Outcome.REFUSED_DEADLINE
