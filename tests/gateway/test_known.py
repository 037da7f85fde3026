"""What a caller's head said is kept with its connection, and never longer than it is true."""

from __future__ import annotations

from tests.gateway.world import Caller, run, world

from penstock.config import Config, Key
from penstock.gateway.auth import Tenant

SECRETS = {"right": "27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9"}
"""Key -> SHA-256."""
KEYED = Config(keys=(Key(name="t", sha256=SECRETS["right"]),))
BODY = {"model": "m1", "messages": [{"role": "user", "content": "hi"}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_equal_heads_are_let_in_again_and_another_key_on_the_connection_is_not() -> None:
    async def test() -> None:
        async with world(config=KEYED, models=("m1",)) as w, Caller(w.port) as caller:
            for _ in range(3):
                caller.send(BODY, headers=bearer("right"))
                assert (await caller.answer()).status == 200
            for key in ("wrong", "righ", ""):
                caller.send(BODY, headers=bearer(key))
                assert (await caller.answer()).status == 401
            caller.send(BODY, headers=bearer("right"))
            assert (await caller.answer()).status == 200

    run(test)


def test_a_change_of_keys_is_noticed_on_connections_that_were_let_in_before() -> None:
    async def test() -> None:
        async with world(config=KEYED, models=("m1",)) as w, Caller(w.port) as caller:
            caller.send(BODY, headers=bearer("right"))
            assert (await caller.answer()).status == 200
            ring = w.gateway.app._keys
            ring._table.clear()
            ring.add(Tenant("other", 1), bytes(32))
            caller.send(BODY, headers=bearer("right"))
            assert (await caller.answer()).status == 401

    run(test)


def test_every_answer_has_an_id_of_its_own() -> None:
    async def test() -> None:
        async with world() as w, Caller(w.port) as caller:
            seen = []
            for asked in (None, None, "mine", None):
                caller.send(headers={"x-request-id": asked} if asked else None, path="/v1/chat/completions", body={"model": "x"})
                seen.append((await caller.answer()).headers["x-request-id"])
            assert seen[2] == "mine" and len({*seen}) == 4

    run(test)
