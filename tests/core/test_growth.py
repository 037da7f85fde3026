"""KV memory as the core deals it out: topped up as answers grow, kept for those that have waited long, settled at the end."""

from __future__ import annotations

from tests.playbook import NOTHING, Play, build, call, forward

from penstock.config import Class, Node, When
from penstock.core.claims import KEPT_MOST, Claims
from penstock.core.lengths import ENOUGH
from penstock.events import Arrived, Cancelled, Finished, FirstToken, Progress, Tick
from penstock.knobs import Knobs

TIGHT = Node(name="a", url="http://127.0.0.1:9", kv_tokens=10_000)
ALL = Knobs(depth_s=1e6, kv_share=1.0)


def play(*nodes: Node) -> Play:
    return Play(build(*(nodes or (TIGHT,)), rules=(Class(name="usual", ttft_ms=60_000.0),), knobs=ALL))


def test_reservation_is_topped_up_when_an_answer_outgrows_it_and_settled_at_its_end() -> None:
    p = play()
    p >> Arrived(call(1)) << forward(1, "a")
    p.at(1.0) >> FirstToken(1)
    memory = p.core.nodes[0].memory
    p.at(2.0) >> Progress("a", 200, 1.0)
    before = memory.held[1][1]
    assert before == 1_000 + 256
    p.at(3.0) >> Progress("a", 200, 1.0)
    p.at(4.0) >> Progress("a", 200, 1.0)
    assert memory.held[1][1] > before + 144, "400 tokens were written since the first report"
    p.at(5.0) >> Finished(1, output_tokens=450)
    assert memory.reserved == 0 and not memory.pool.flights


def test_answers_that_run_are_learned_from_before_they_end() -> None:
    p = play(Node(name="a", url="http://127.0.0.1:9", kv_tokens=1_000_000))
    for id in range(ENOUGH + 4):
        p >> Arrived(call(id, tokens=10)) << forward(id, "a")
        p >> FirstToken(id) << NOTHING
    assert p.core.lengths.high(("*", "usual", ""), 0) == 256
    p.at(1.0) >> Progress("a", 400 * 20, 20.0)
    p.at(2.0) >> Progress("a", 400 * 20, 20.0) << NOTHING
    assert p.core.lengths.high(("*", "usual", ""), 0) > 256


def test_small_request_passes_one_that_waits_for_memory() -> None:
    p = play()
    p >> Arrived(call(1, tokens=5_000)) << forward(1, "a")
    p >> Arrived(call(2, tokens=7_000)) << NOTHING
    p >> Arrived(call(3, tokens=1_000)) << forward(3, "a")


def test_memory_is_kept_for_one_that_has_waited_long() -> None:
    p = play()
    p >> Arrived(call(1, tokens=5_000)) << forward(1, "a")
    p >> Arrived(call(2, tokens=7_000)) << NOTHING
    p.at(5.0) >> Tick() << NOTHING
    p >> Arrived(call(3, tokens=1_000)) << NOTHING
    assert p.core.nodes[0].memory.claimant is p.core.flights[2]
    p >> Finished(1, output_tokens=10) << forward(2, "a") << forward(3, "a")
    assert p.core.nodes[0].memory.claimant is None


def test_the_first_in_the_order_takes_over_what_is_kept_for_a_later_one() -> None:
    high = Class(name="high", when=When(tenant="desk"), priority=5, ttft_ms=90_000.0)
    p = Play(build(TIGHT, rules=(high, Class(name="usual", ttft_ms=60_000.0)), knobs=ALL))
    p >> Arrived(call(1, tokens=5_000)) << forward(1, "a")
    p >> Arrived(call(2, tokens=6_000)) << NOTHING
    p.at(16.0) >> Tick() << NOTHING
    memory = p.core.nodes[0].memory
    assert memory.claimant is p.core.flights[2]
    p >> Arrived(call(3, tokens=7_000, tenant="desk")) << NOTHING
    p.at(40.0) >> Arrived(call(4, tokens=9_000)) << NOTHING
    assert memory.claimant is p.core.flights[3] and p.core.flights[2].claim is None
    p >> Finished(1, output_tokens=10) << forward(3, "a")


def test_the_most_served_tenant_leaves_memory_that_a_modest_one_is_given() -> None:
    p = play()
    lane = p.core.lanes["*"]
    claims = lane.claims[3] = Claims()
    p >> Arrived(call(1, tokens=100, tenant="small")) << forward(1, "a")
    p >> Arrived(call(2, tokens=5_000, tenant="hog")) << forward(2, "a")
    p >> Arrived(call(3, tokens=100, tenant="small")) << forward(3, "a")
    claims.kept = KEPT_MOST
    p.at(2.0) >> Arrived(call(4, tokens=3_500, tenant="hog")) << NOTHING
    lane.drain_s = 1e3
    p >> Arrived(call(5, tokens=3_500, tenant="small")) << forward(5, "a")
    claims.kept = 0.0
    p >> Finished(5, output_tokens=10) << forward(4, "a")


def test_claim_ends_with_the_one_that_laid_it() -> None:
    p = play()
    p >> Arrived(call(1, tokens=5_000)) << forward(1, "a")
    p >> Arrived(call(2, tokens=7_000)) << NOTHING
    p.at(5.0) >> Tick() << NOTHING
    p >> Arrived(call(3, tokens=1_000)) << NOTHING
    p >> Cancelled(2) << forward(3, "a")
    assert p.core.nodes[0].memory.claimant is None


def test_claim_ends_when_its_request_expires() -> None:
    p = play()
    p >> Arrived(call(1, tokens=5_000)) << forward(1, "a")
    p >> Arrived(call(2, tokens=7_000)) << NOTHING
    p.at(5.0) >> Tick() << NOTHING
    assert p.core.nodes[0].memory.claimant is not None
    p.core.handle(Tick(), 61.0)
    assert p.core.nodes[0].memory.claimant is None and 2 not in p.core.flights


def test_lying_length_of_an_answer_is_bounded() -> None:
    p = play()
    for id in range(2 * ENOUGH):
        p >> Arrived(call(id, tokens=10, max_tokens=50)) << forward(id, "a")
        p >> Finished(id, output_tokens=10**15) << NOTHING
    assert p.core.lengths.mean(("*", "usual", ""), 0) < 100
