from __future__ import annotations

from hashlib import sha256

import pytest

from penstock.config import Config, Key, Listen
from penstock.errors import ConfigError
from penstock.gateway.auth import ENVIRONMENT, LOCAL, Tenant, engine_key, is_loopback, keyring, refuse_exposure

SECRET = "sk-canary-1f6a"


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def test_without_keys_everybody_is_local() -> None:
    ring = keyring(Config(), {})
    assert ring.open
    assert ring.tenant(None) is LOCAL
    assert ring.tenant("Bearer whatever") is LOCAL


@pytest.mark.parametrize(
    ("config", "environment"),
    [
        (Config(keys=(Key(name="desk", sha256=_hash(SECRET), max_priority=4),)), {}),
        (Config(keys=(Key(name="desk", env="DESK_KEY", max_priority=4),)), {"DESK_KEY": SECRET}),
    ],
)
def test_a_configured_key_names_its_tenant(config: Config, environment: dict[str, str]) -> None:
    ring = keyring(config, environment)
    tenant = ring.tenant(f"Bearer {SECRET}")
    assert tenant is not None
    assert (tenant.name, tenant.max_priority) == ("desk", 4)


def test_keys_from_the_environment_name_their_tenants() -> None:
    ring = keyring(Config(), {"PENSTOCK_KEYS": "desk:sk-1, lab:sk:2,"})
    assert _name(ring.tenant("Bearer sk-1")) == "desk"
    assert _name(ring.tenant("bearer sk:2")) == "lab"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer sk-wrong", f"Basic {SECRET}", SECRET, f"Bearer {SECRET} ", "Bearer \udcff\xe9"]
)
def test_what_is_no_accepted_key_is_nobody(header: str | None) -> None:
    assert keyring(Config(), {"PENSTOCK_KEYS": f"desk:{SECRET}"}).tenant(header) is None


def test_tenants_have_salts_of_their_own_that_outlive_the_process() -> None:
    environment = {"PENSTOCK_KEYS": "desk:a,lab:b"}
    first, second = keyring(Config(), environment), keyring(Config(), environment)
    desk, lab = first.tenant("Bearer a"), first.tenant("Bearer b")
    assert desk is not None
    assert lab is not None
    assert desk.salt != lab.salt
    assert desk == second.tenant("Bearer a")


def test_the_table_holds_no_key_and_differs_between_processes() -> None:
    environment = {"PENSTOCK_KEYS": f"desk:{SECRET}"}
    first, second = keyring(Config(), environment), keyring(Config(), environment)
    assert set(first._table).isdisjoint(second._table)
    assert SECRET.encode() not in b"".join(first._table)
    assert sha256(SECRET.encode()).digest() not in first._table


@pytest.mark.parametrize("text", ["sk-canary-1f6a", ":sk-canary-1f6a", "desk:", "a:b,sk-canary-1f6a", "a b:sk-canary-1f6a"])
def test_a_malformed_environment_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_KEYS") as error:
        keyring(Config(), {"PENSTOCK_KEYS": text})
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (Key(name="desk"), r"keys\[0\]"),
        (Key(name="desk", env="A", sha256="0" * 64), r"keys\[0\]"),
        (Key(name="desk", env="UNSET"), r"keys\[0\]\.env"),
    ],
)
def test_a_key_that_cannot_be_used_names_its_place(key: Key, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        keyring(Config(keys=(key,)), {"A": "x"})


def test_a_listener_others_can_reach_needs_keys() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        config = Config(listen=Listen(host=host))
        with pytest.raises(ConfigError, match=r"listen\.host"):
            refuse_exposure(config, keyring(config, {}))
        refuse_exposure(config, keyring(config, {"PENSTOCK_KEYS": "a:b"}))


def test_an_admin_listener_others_can_reach_needs_its_key() -> None:
    config = Config(admin=Listen(host="0.0.0.0"))
    with pytest.raises(ConfigError, match=r"admin\.host"):
        refuse_exposure(config, keyring(config, {"PENSTOCK_KEYS": "a:b"}))
    refuse_exposure(Config(admin=Listen(host="0.0.0.0"), admin_key_env="X"), keyring(config, {}))


def test_loopback_is_known_in_its_forms() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "")))


def test_an_engines_key_must_be_set_and_fit_into_a_header() -> None:
    assert engine_key("K", "nodes[0].key_env", {"K": "sk"}) == "sk"
    for environment in ({}, {"K": ""}, {"K": "sk\r\nx: y"}, {"K": "clé"}):
        with pytest.raises(ConfigError, match=r"nodes\[0\]\.key_env") as error:
            engine_key("K", "nodes[0].key_env", environment)
        assert "sk" not in str(error.value)


def _name(tenant: Tenant | None) -> str | None:
    return tenant.name if tenant is not None else None


def test_a_keys_classes_are_globs_and_those_of_the_environment_none() -> None:
    config = Config(keys=(Key(name="desk", env="DESK", classes=("trade*", "rest")),))
    tenants = keyring(config, {"DESK": "a", ENVIRONMENT: "me:b,me:c"}).named()
    assert list(tenants) == ["desk", "me"]
    assert [tenants["desk"].may_ask(name) for name in ("trade", "trade-now", "rest", "restless", "Trade")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert not tenants["me"].may_ask("trade")
    assert LOCAL.may_ask("anything")
