"""A configuration file becomes a `Config`, or one line that says what to mend and where."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Config, Range
from penstock.errors import ConfigError
from penstock.gateway import settings

GOOD = """\
listen: {host: 127.0.0.1, port: 8000, cors: ["https://chat.example"]}
admin: "127.0.0.1:8001"
keys:
  - {name: desk, env: DESK_KEY, max_priority: 5}
  - {name: lab, sha256: %s}
nodes:
  - http://10.0.0.1:8000
  - name: big
    url: https://10.0.0.2
    models: [deepseek-r1]
    key_env: BIG_KEY
aliases: {gpt-4o: deepseek-r1}
classes:
  - {name: short, when: {prompt_tokens: {lt: 1e3}}, priority: 5, ttft_ms: 500}
  - {name: rest, ttft_ms: 2000, ttft_ms_per_1k: 250, tpot_ms: 100}
pools:
  - {name: large, nodes: [big]}
policy: {order: fcfs, score: {latency: 1, prefix: 0.5}}
knobs: {queue_max: 1_000}
hold: {json: true}
limits: {body_bytes: 1_048_576}
""" % hashlib.sha256(b"secret-of-the-lab").hexdigest()

ENVIRON = {"DESK_KEY": "secret-of-the-desk", "BIG_KEY": "secret-of-big"}


def line_of(text: str, environ: dict[str, str] | None = None) -> str:
    """What a person is told of a bad file called penstock.yaml."""
    with pytest.raises(ConfigError) as caught:
        settings.read(text, environ or {}, file="penstock.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_everything_that_can_be_said_is_read() -> None:
    config = settings.read(GOOD, ENVIRON)
    assert (config.listen.host, config.listen.port, config.listen.cors) == ("127.0.0.1", 8000, ("https://chat.example",))
    assert config.admin.port == 8001
    assert [node.name for node in config.nodes] == ["10.0.0.1-8000", "big"]
    assert config.classes[0].when.prompt_tokens == Range(lt=1000)
    assert config.classes[1].ttft_ms_per_1k == 250
    assert config.policy.score == {"latency": 1.0, "prefix": 0.5}
    assert (config.knobs.queue_max, config.hold.json, config.limits.body_bytes) == (1000, True, 1_048_576)


def test_an_empty_file_is_the_defaults() -> None:
    assert settings.read("", {}) == Config() == settings.read("# nothing yet\n", {})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("listen: 9000", "127.0.0.1", 9000),
        ("listen: '9000'", "127.0.0.1", 9000),
        ("listen: ':9000'", "127.0.0.1", 9000),
        ("listen: localhost:9000", "localhost", 9000),
        ("listen: '[::1]:9000'", "::1", 9000),
        ("listen: {port: 9000}", "127.0.0.1", 9000),
    ],
)
def test_an_address_may_be_written_short(text: str, host: str, port: int) -> None:
    listen = settings.read(text, {}).listen
    assert (listen.host, listen.port) == (host, port)


def test_the_admin_listener_keeps_its_port_when_only_its_host_is_given() -> None:
    assert settings.read("admin: {host: 127.0.0.2}", {}).admin.port == 8081


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # What the types refuse.
        ("nodes:\n  - url: http://a", "penstock.yaml:2: nodes[0]: name is missing"),
        ("nodes:\n  - name: a\n    url: a:80", 'penstock.yaml:3: nodes[0].url: expected http://HOST:PORT or https://HOST, got "a:80"'),
        ("nodes:\n  - name: a\n    ulr: http://a", "penstock.yaml:3: nodes[0].ulr: unknown key; did you mean 'url'?"),
        ("\nnodes: 3", "penstock.yaml:2: nodes: expected a list, got 3"),
        ("nodes: {a: 1}", "penstock.yaml:1: nodes: expected a list, got a mapping"),
        ("knbs: {}", "penstock.yaml:1: knbs: unknown key; did you mean 'knobs'?"),
        ("listen: {tls: {crt: a}}", "penstock.yaml:1: listen.tls.crt: unknown key; did you mean 'cert'?"),
        ("hold:\n  zzz: 1", "penstock.yaml:2: hold.zzz: unknown key; known here: quiet_s, interval_s, json"),
        ("classes:\n - {name: a, when: {prompt_tokens: {min: 1}}}", "unknown key; known here: gt, ge, lt, le"),
        ("knobs:\n  scan: 1.5", "penstock.yaml:2: knobs.scan: expected a whole number, got 1.5"),
        ("knobs:\n  scan: 0", "penstock.yaml:2: knobs.scan: expected a whole number >= 1, got 0"),
        ("knobs:", "penstock.yaml:1: knobs: expected a mapping, got nothing"),
        ("hold: {json: no}", 'penstock.yaml:1: hold.json: expected true or false, got "no"'),
        ("listen: {port: 70000}", "penstock.yaml:1: listen.port: expected a whole number <= 65535, got 70000"),
        ("listen: nowhere", "penstock.yaml:1: listen: expected PORT or HOST:PORT, got 'nowhere'"),
        ("aliases: {a: 1}", "penstock.yaml:1: aliases.a: expected text, got 1"),
        ("nodes: [{name: -a, url: http://a}]", "nodes[0].name: expected a name of letters"),
        ("- a", "penstock.yaml: expected a mapping, got a list"),
        # What only the whole can tell.
        ("nodes: [{name: a, url: 'http://a'},\n {name: a, url: 'http://b'}]", "penstock.yaml:2: nodes[1].name: the same as nodes[0].name"),
        ("nodes: ['http://a', {name: b, url: 'http://a/'}]", "nodes[1].url: the same as nodes[0].url"),
        ("pools:\n- name: p\n  nodes:\n  - b", "penstock.yaml:4: pools[0].nodes[0]: no node is named 'b'"),
        ("aliases:\n  a: b\n  b: c", "penstock.yaml:2: aliases.a: 'b' is an alias itself"),
        ("nodes: [{name: a, url: 'http://a', models: [m]}]\naliases: {x: n}", "penstock.yaml:2: aliases.x: no node serves 'n'; they "),
        ("nodes: [{name: a, url: 'http://a:99999'}]", "penstock.yaml:1: nodes[0].url: no host, or a port that is none of 1 to 65535"),
        ("nodes: ['http://:80']", "penstock.yaml:1: nodes[0].url: no host, or a port"),
        ("ladder: [wait, cash]", "penstock.yaml:1: ladder[1]: "),
        ("ladder: [wait, smaller]", "ladder[1]: no model has a smaller one; name them: `smaller: {MODEL: OTHER}`"),
        ("classes: [{name: a, when: {route: chats}}]", "classes[0].when.route: no route is named 'chats'; known: chat, "),
        ("classes: [{name: a, ttft_ms_per_1k: 5}]", "classes[0].ttft_ms_per_1k: adds to ttft_ms, which is not given"),
        ("classes: [{name: a, ttft_ms: 5, total_ms: 4}]", "classes[0].total_ms: the whole answer cannot be due"),
        ("classes: [{name: a}, {name: b}]", "classes[1]: never reached: classes[0] (a) matches everything"),
        ("classes: [{name: a, when: {prompt_tokens: {}}}]", "classes[0].when.prompt_tokens: give gt, ge, lt or le"),
        ("classes: [{name: a, when: {prompt_tokens: {gt: 1, ge: 1}}}]", "give gt or ge, not both"),
        ("classes: [{name: a, when: {prompt_tokens: {lt: 1, le: 1}}}]", "give lt or le, not both"),
        ("classes: [{name: a, when: {prompt_tokens: {gt: 5, le: 5}}}]", "no number is in this range"),
        ("keys: [{name: a}]", "penstock.yaml:1: keys[0]: "),
        ("keys: [{name: a, env: NOWHERE}]", "penstock.yaml:1: keys[0].env: environment variable NOWHERE is not set"),
        ("nodes: [{name: a, url: 'http://a', key_env: NOWHERE}]", "nodes[0].key_env: environment variable NOWHERE is not set"),
        ("admin_key_env: NOWHERE", "penstock.yaml:1: admin_key_env: environment variable NOWHERE is not set"),
        ("policy: {order: fifo}", "penstock.yaml:1: policy.order: unknown policy 'fifo'; known: "),
        ("policy: {pick: nowhere:Class}", "policy.pick: cannot load policy 'nowhere:Class'"),
        ("policy:\n  score:\n    latency: -1", "penstock.yaml:3: policy.score.latency: expected a weight of at least 0, got -1"),
        ("policy: {hash_by: []}", "penstock.yaml:1: policy.hash_by: names nothing; leave it out for session, prefix, tenant"),
        ("policy: {hash_by: [tenant, session, tenant]}", "penstock.yaml:1: policy.hash_by[2]: tenant is named before"),
        ("policy: {hash_by: [color]}", "penstock.yaml:1: policy.hash_by[0]: "),
        ("knobs: {weight_session: -1}", "penstock.yaml:1: knobs.weight_session: "),
        ("policy: {score: {latency: 0}}", "policy.score: give at least one score a weight above 0"),
        ("tickets: {path: /}", "penstock.yaml:1: tickets.path: / is a folder; name a file in it"),
        ("tickets: {path: ''}", "penstock.yaml:1: tickets.path: names no file; leave it out for the usual place"),
        ("policy: {score: {}}", "policy.score: give at least one score a weight above 0"),
        ("listen: 0.0.0.0:80", "penstock.yaml:1: listen"),
        ("admin: 0.0.0.0:80", "penstock.yaml:1: admin"),
        ("admin: 8080", "penstock.yaml:1: admin.port: port 8080 is the API's already (listen)"),
        ("nodes: [{name: a, url: 'http://a', sni: b}]", "nodes[0].sni: needs an https:// url"),
        ("nodes: [{name: a, url: 'https://a', ca: /nowhere}]", "nodes[0].ca: cannot read /nowhere: No such file or directory"),
        ("nodes: [{name: a, url: 'http://a', profile: abacus}]", "nodes[0].profile: no profile 'abacus'; there are "),
        ("listen: {tls: {cert: /nowhere, key: /nowhere}}", "listen.tls.cert: cannot read /nowhere"),
        # What YAML itself, or our limits on it, refuse.
        ("a: [1", "penstock.yaml:1: not YAML: "),
        ("listen: 1\nlisten: 2", "penstock.yaml:2: listen: the key stands here twice, first on line 1"),
        ("a: !!python/object/apply:os.system [id]", "penstock.yaml:1: a: tag "),
        ("a: !!binary aGk=", "penstock.yaml:1: a: tag "),
        ("a: !!int x", "penstock.yaml:1: a: not a number: 'x'"),
        ("a: 1e999", "penstock.yaml:1: a: number out of range"),
        ("a: 99999999999999999999", "penstock.yaml:1: a: number out of range"),
        ("? [1]\n: 2", "penstock.yaml:1: a key must be a word"),
        ("a: &a [*a]", "a[0]: an alias inside its own anchor"),
        ("[" * 40, "penstock.yaml:1: nested deeper than 32"),
        ("a: 1\n---\nb: 1", "not YAML: but found another document"),
        ("a: \x01", "penstock.yaml: not YAML: "),
        (" " * 1_048_577, "penstock.yaml: larger than 1048576 bytes"),
    ],
)
def test_an_error_names_line_key_and_remedy(text: str, message: str) -> None:
    assert message in line_of(text)


def test_aliases_that_multiply_are_bounded() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    assert "more than 100000 values" in line_of(bomb)


def test_an_alias_saves_typing() -> None:
    config = settings.read("nodes:\n- {name: a, url: 'http://a', models: &m [x, y]}\n- {name: b, url: 'http://b', models: *m}", {})
    assert config.nodes[0].models == config.nodes[1].models == ("x", "y")


def test_a_key_is_never_repeated_in_an_error() -> None:
    for text in ("keys: [{name: a, sha256: sk-very-secret}]", "keys: [{name: a, env: {sk-very-secret: 1}}]", "keys: [sk-very-secret]"):
        assert "very-secret" not in line_of(text)


def test_the_environment_may_open_a_listener_to_others() -> None:
    assert settings.read("listen: 0.0.0.0:80", {"PENSTOCK_KEYS": "desk:secret"}).listen.host == "0.0.0.0"


def test_a_store_of_tickets_is_found_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text("tickets: {path: state/tickets.sqlite}")
    assert settings.load(file).tickets.path == str(tmp_path / "state" / "tickets.sqlite")


def test_certificates_are_found_beside_the_file_and_must_match(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
        subprocess.run([*make, "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"], check=True, capture_output=True)
    file = tmp_path / "penstock.yaml"
    file.write_text("listen: {tls: {cert: one.pem, key: one.key}}\nnodes: [{name: a, url: 'https://a', ca: two.pem}]")
    config = settings.load(file, {})
    assert config.listen.tls is not None
    assert config.listen.tls.cert == str(tmp_path / "one.pem")
    assert config.nodes[0].ca == str(tmp_path / "two.pem")
    file.write_text("listen: {tls: {cert: one.pem, key: two.key}}")
    with pytest.raises(ConfigError, match=r"penstock\.yaml:1: listen\.tls: certificate and key do not work together"):
        settings.load(file, {})


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent.yaml: No such file or directory"):
        settings.load(tmp_path / "absent.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"# ok\n# \xe9\n")
    with pytest.raises(ConfigError, match="latin.yaml:2: not UTF-8 text"):
        settings.load(tmp_path / "latin.yaml", {})


@given(st.text(alphabet=st.sampled_from("-:[]{}&*!|>'\"# \n\tabz019.,?~%@`\\nodesurl"), max_size=80))
def test_no_text_brings_anything_but_a_config_or_one_line(text: str) -> None:
    try:
        settings.read(text, {}, file="f")
    except ConfigError as error:
        assert "\n" not in str(error)


LIMITED = "prices: {'*': {input_per_1m: %s}}\nkeys:\n- name: desk\n  sha256: '" + "0" * 64 + "'\n  limits:\n  - %s"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("{requests: 1, tokens: 2}", "penstock.yaml:6: keys[0].limits[0]: needs exactly one of requests, tokens, cost"),
        ("{window_s: 5}", "keys[0].limits[0]: needs exactly one of requests, tokens, cost"),
        ("{requests: 0}", "keys[0].limits[0].requests: expected a whole number >= 1"),
        ("{requests: 1, window_s: 1e9}", "keys[0].limits[0].window_s: expected at most"),
        ("{requests: 1, window_s: .nan}", "keys[0].limits[0].window_s: expected"),
        ("{tokens: 5, windw_s: 1}", "keys[0].limits[0].windw_s: unknown key; did you mean 'window_s'?"),
        ("{cost: 1e400}", "keys[0].limits[0].cost: number out of range"),
        ("{tokens: 5}\n  - {tokens: 6}", "penstock.yaml:7: keys[0].limits[1]: the same tokens and window_s as limits[0]; keep one"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(limit: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.read(LIMITED % ("1.5", limit), {}, file="penstock.yaml")
    assert message in str(caught.value)


def test_limits_of_several_windows_and_kinds_are_read() -> None:
    several = "{tokens: 5}\n  - {tokens: 60, window_s: 3600}\n  - {requests: 5}\n  - {cost: 0.5}"
    assert len(settings.read(LIMITED % ("1.5", several), {}).keys[0].limits) == 4


def test_a_budget_needs_prices() -> None:
    with pytest.raises(ConfigError, match=r"keys\[0\].limits\[0\].cost: a limit of cost needs prices"):
        settings.read((LIMITED % ("1", "{cost: 1}")).partition("\n")[2], {})
