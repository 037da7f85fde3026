"""Pools in the configuration file, and as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.gateway.test_asked import watched
from tests.gateway.world import BODY, MODEL, STREAM, WORDS, Behave, Caller, World, answer, ask, never, run, until, world

from penstock.cli.check import describe
from penstock.cli.walk import document, lines
from penstock.config import Class, Config, Pool, PoolWhen, Range, Rung, When
from penstock.errors import ConfigError
from penstock.gateway import settings
from penstock.gateway.replay import replay
from penstock.gateway.walk import Walk, walk
from penstock.wire.difficulty import estimate

NODES = """
nodes:
- {name: a, url: 'http://a', models: [m], labels: {zone: x}}
- {name: b, url: 'http://b', models: [m, n], labels: {zone: y}}
"""


def line_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.read(text, {}, file="f")
    return str(caught.value)


# --- the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pools:\n- name: p", "f:6: pools[0]: nobody can be in it; give nodes by name, or the labels that its nodes have"),
        ("pools:\n- name: p\n  nodes: [a, c]", "f:7: pools[0].nodes[1]: no node is named 'c'; there are a, b"),
        ("pools: [{name: p, nodes: [a, a]}]", "pools[0].nodes[1]: a stands here twice"),
        ("pools:\n- name: p\n  labels: {zone: z}", "f:7: pools[0].labels: no node has these labels (zone: z)"),
        ("pools: [{name: p, nodes: [a], models: [m, n]}]", "pools[0].models[1]: none of its nodes serves 'n'; they serve m"),
        ("aliases: {x: m}\npools: [{name: p, nodes: [a], models: [x]}]", "pools[0].models[0]: 'x' is an alias; name the engine's"),
        ("pools: [{name: p, nodes: [a]}, {name: p, nodes: [b]}]", "pools[1].name: the same as pools[0].name"),
        ("pools:\n- name: p\n  nodes: [a]\n  fallback: q", "f:8: pools[0].fallback: no pool is named 'q'; there are p"),
        ("pools: [{name: p, nodes: [a], fallback: p}]", "pools[0].fallback: goes round in a circle: p -> p"),
        (
            "pools: [{name: o, nodes: [b], when: {tenant: x}, fallback: p}, {name: p, nodes: [a], fallback: q}, "
            "{name: q, nodes: [b], fallback: p}]",
            "pools[1].fallback: goes round in a circle: p -> q -> p",
        ),
        ("pools: [{name: p, nodes: [a], fallback: q}, {name: q, nodes: [b], models: [n]}]", "none of its models (m) is served by q"),
        ("pools: [{name: p, nodes: [b]}, {name: q, nodes: [a]}]", "pools[1]: never reached: pools[0] (p) takes everything for its models"),
        (
            "pools: [{name: p, nodes: [b], when: {tenant: 'x*'}}, {name: q, nodes: [a], when: {tenant: xy, class: default}}]",
            "pools[1]: never reached: pools[0] (p) takes all that meets its rule",
        ),
        ("pools: [{name: p, nodes: [a], when: {class: trade}}]", "pools[0].when.class: no class is named 'trade'; there are default"),
        ("pools: [{name: p, nodes: [a], when: {model: 'n*'}}]", "pools[0].when.model: it serves no model 'n*', only m"),
        ("pools: [{name: p, nodes: [a], when: {difficulty: {gt: 1}}}]", "pools[0].when.difficulty: difficulty is from 0 to 1"),
        ("pools: [{name: p, nodes: [a], when: {metadata.n: {}}}]", "pools[0].when.metadata.n: give gt, ge, lt or le"),
        ("pools: [{name: p, nodes: [a], when: {header.cookie: x}}]", "pools[0].when.header.cookie: no rule may look at"),
        ("pools: [{name: p, nodes: [a], when: {clas: x}}]", "pools[0].when.clas: unknown key; did you mean 'class'?"),
        ("pools: [{name: p, nodes: [a]}]\nladder: [sibling]", "ladder[0]: no pool names another one as its fallback"),
        (
            "pools: [{name: p, nodes: [a], fallback: q}, {name: q, nodes: [b]}]\nclasses: [{name: c, ladder: [sibling, wait, sibling]}]",
            "classes[0].ladder[2]: no pool has more than 1 to fall back on",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_where_it_stands(text: str, message: str) -> None:
    assert message in line_of(NODES + text)


@pytest.mark.parametrize(
    "text",
    [
        "pools: [{name: p, nodes: [a], fallback: q}, {name: q, nodes: [b]}]\nladder: [wait, sibling]",
        "pools: [{name: p, nodes: [a], when: {class: default, session: '*', difficulty: {ge: 0.5}}}, {name: q, labels: {zone: y}}]",
        "pools: [{name: p, nodes: [found]}, {name: q, labels: {zone: z}}]\ndiscovery: {dns: [{name: engines}]}",
    ],
)
def test_what_can_work_is_taken(text: str) -> None:
    settings.read(NODES + text, {})


def test_a_file_with_pools_is_told_in_words() -> None:
    text = (
        "pools: [{name: p, nodes: [a], when: {class: default, prompt_tokens: {gt: 5}}, fallback: q}, "
        "{name: q, labels: {zone: y}, models: [m]}]"
    )
    told = [line for line in describe(settings.read(NODES + text, {})) if line.startswith("pool")]
    assert told == [
        "pool     p: class default and prompt tokens > 5  (on a; falls back on q)",
        "pool     q: everything  (on b; models m)",
        "pool     none: what meets no rule runs on all nodes of the pools that name its model; where none does, on all that have it",
    ]


EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pools.yaml"


@pytest.mark.parametrize(
    ("body", "pool", "siblings"),
    [
        ({}, "general", ()),
        ({"metadata": {"desk": "rates"}}, "high-performance", ("general",)),
        ({"metadata": {"difficulty": 0.95}}, "high-performance", ("general",)),
        (
            {"messages": [{"role": "user", "content": "long " * 40_000}], "metadata": {"difficulty": 0}},
            "high-memory",
            ("high-performance", "general"),
        ),
    ],
)
def test_the_example_says_what_runs_where(body: dict[str, Any], pool: str, siblings: tuple[str, ...]) -> None:
    told = walk(settings.load(EXAMPLE, {}), msgspec.json.encode(BODY | {"model": "deepseek-chat"} | body), environ={})
    assert (told.pool, told.siblings) == (pool, siblings)


# --- one request


def walked(text: str, request: dict[str, Any]) -> Walk:
    return walk(settings.read(NODES + text, {}), msgspec.json.encode(request), "f", {})


RULED = "pools: [{name: p, nodes: [a], when: {difficulty: {ge: 0.5}}, fallback: q}, {name: q, nodes: [b]}]\nladder: [wait, sibling]"


def test_a_request_is_told_its_pool_and_why() -> None:
    body = BODY | {"model": "m", "metadata": {"difficulty": 0.75}}
    told = walked(RULED, body)
    assert "\n".join(lines(told)).endswith(
        "class    default (no rule matches)\n"
        "rule     pool p: matches\n           yes  difficulty >= 0.5: 0.75\n"
        "rule     pool q: not tried\n"
        "pool     p (on a, then q)\n"
        "priority 3\nvalue    1\ndeadline none: it waits until the queue's bound (knobs.queue_ttl_s)\nladder   wait, sibling"
    )
    shown = document(told)
    assert (shown["pool"], shown["nodes"], shown["siblings"]) == ("p", ("a",), ("q",))
    told = walked(RULED, BODY | {"model": "n"})
    assert "rule     pool p: serves no n\nrule     pool q: matches\n           yes  everything\npool     q (on b)" in "\n".join(lines(told))


def test_a_request_of_no_pool_is_told_so() -> None:
    told = walked("pools: [{name: p, nodes: [a], when: {session: 'chat-*'}}]", BODY | {"model": "m", "prompt_cache_key": "mail-1"})
    assert "rule     pool p: no match\n           no   session chat-*: mail-1\npool     none (on a, b)" in "\n".join(lines(told))


# --- on real sockets


@asynccontextmanager
async def two_pools(first: Behave, *ladder: Rung, journal: Path | None = None, **rule: Any) -> AsyncIterator[World]:
    """n0, with one slot, for those of session `s`; n1 for the others, and to fall back on."""
    pools = (Pool(name="own", nodes=("n0",), when=PoolWhen(session="s"), fallback="rest"), Pool(name="rest", nodes=("n1",)))
    config = Config(classes=(Class(name="it", ladder=ladder, **rule),), pools=pools)
    async with world(first, answer, config=config, journal=journal, each=({"max_running": 1}, {})) as w:
        yield w


OWN = {"x-penstock-session": "s"}


def test_a_request_runs_in_the_pool_of_its_session() -> None:
    async def test() -> None:
        async with two_pools(answer) as w:
            seen = watched(w)
            assert (await ask(w.port, BODY, headers=OWN)).headers["x-penstock-node"] == "n0"
            assert (await ask(w.port, BODY | {"prompt_cache_key": "s"})).headers["x-penstock-node"] == "n0"
            assert (await ask(w.port, BODY | {"prompt_cache_key": "s"}, headers={"x-penstock-session": "t"})).headers[
                "x-penstock-node"
            ] == "n1"
            assert (await ask(w.port, BODY)).headers["x-penstock-node"] == "n1"
            assert [request.session for request in seen] == ["s", "s", "t", ""]

    run(test)


def test_who_waited_in_vain_is_served_by_the_sibling_and_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_pools(never, Rung.WAIT, Rung.SIBLING, ttft_ms=700, journal=tmp_path) as w, Caller(w.port) as other:
            other.send(BODY, headers=OWN)
            await until(lambda: w.engines[0].open)
            got = await ask(w.port, STREAM, headers=OWN)
            assert (got.text, got.headers["x-penstock-served-by"]) == ("".join(WORDS), "wait, sibling")
            assert got.headers["x-penstock-node"] == "n1"

    run(test)
    assert replay(tmp_path).difference is None


@pytest.mark.parametrize("name", ["x" * 257, "a\tb"])
def test_a_session_that_is_none_is_refused(name: str) -> None:
    async def test() -> None:
        async with two_pools(answer) as w:
            got = await ask(w.port, BODY, headers={"x-penstock-session": name})
            assert (got.status, got.error["param"]) == (400, "x-penstock-session")

    run(test)


@pytest.mark.parametrize("rule", [True, False])
def test_difficulty_is_known_where_a_rule_asks(rule: bool) -> None:
    when = PoolWhen(difficulty=Range(ge=0.5)) if rule else PoolWhen(tenant="x")
    config = Config(classes=(Class(name="c", when=When(tenant="x")),), pools=(Pool(name="hard", nodes=("n0",), when=when),))

    async def test() -> None:
        async with world(answer, answer, config=config) as w:
            seen = watched(w)
            await ask(w.port, BODY | {"metadata": {"difficulty": "0.9"}})
            await ask(w.port, BODY | {"messages": [{"role": "user", "content": "word " * 2_000}]})
            size = seen[1].prompt_tokens
            assert [request.difficulty for request in seen] == ([0.9, estimate(size, seen[1].max_tokens)] if rule else [0.0, 0.0])

    run(test)


def test_queues_are_shown_by_pool() -> None:
    async def test() -> None:
        async with two_pools(never, Rung.WAIT) as w, Caller(w.port) as one, Caller(w.port) as two:
            for caller in (one, two):
                caller.send(BODY, headers=OWN)
            await until(lambda: w.gateway.core.waiting == 1)
            shown = w.gateway.core.snapshot(asyncio.get_running_loop().time()).lanes
            assert {(lane.model, lane.pool): lane.waiting for lane in shown if lane.model == MODEL} == {
                (MODEL, "own"): 1,
                (MODEL, "rest"): 0,
            }

    run(test)
