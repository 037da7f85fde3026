"""The command line: one line a command, one line an error, sane exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import __version__, cli

ROOT = Path(__file__).resolve().parents[1]
KEYS = {"TRADING_KEY": "a", "RESEARCH_KEY": "b", "SPARE_KEY": "c"}


def penstock(*arguments: str, input: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", **environ}
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, input=input, capture_output=True, text=True, env=env, check=False, timeout=60)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_gives_each_command_one_line_in_the_order_of_its_life(arguments: tuple[str, ...]) -> None:
    result = penstock(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    commands = result.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == list(cli.COMMANDS)


def test_every_command_has_help() -> None:
    for name in cli.COMMANDS:
        result = penstock(name, "--help")
        assert result.returncode == 0
        assert f"Usage: penstock {name}" in result.stdout


def test_version_is_the_packages() -> None:
    assert penstock("--version").stdout == f"penstock {__version__} (pure Python)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upp",), "No such command 'upp'. Did you mean 'up'? (see penstock --help)"),
        (("up", "--prt", "1"), "No such option: --prt (Possible options: --port) (see penstock up --help)"),
        (("up", "--port", "x"), "'--port'"),
        (("up", "--engines", "0"), "'--engines'"),
        (("up", "--profile", "abacus"), "no profile 'abacus'; there are "),
        (("check",), "Missing argument"),
        (("check", "/nowhere.yaml"), "/nowhere.yaml: No such file or directory"),
        (("export", "everything"), "'everything' is not one of 'schema'"),
        (("gateway",), "'--config'"),
        (("up", "--config", "/nowhere.yaml"), "/nowhere.yaml: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = penstock(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"penstock: .*\n", result.stderr)
    assert message in result.stderr


def test_check_names_file_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text("nodes:\n  - name: a\n    ulr: http://a\n")
    result = penstock("check", str(file))
    assert (result.returncode, result.stderr) == (2, f"penstock: {file}:3: nodes[0].ulr: unknown key; did you mean 'url'?\n")


def test_check_says_in_words_what_a_configuration_means() -> None:
    result = penstock("check", str(ROOT / "examples" / "penstock.yaml"), **KEYS)
    assert (result.returncode, result.stderr) == (0, "")
    assert "API      http://127.0.0.1:8080  (keys of trading, research)" in result.stdout
    assert "key      trading: may ask for trade*\nkey      research: priority at most 3\n" in result.stdout
    assert "class    trading: tenant trading  (priority 4; first token within 500 ms + 100 per 1,000 prompt tokens)" in result.stdout
    assert "class    trade-large: route chat and metadata.amount > 1000000  (priority 5; " in result.stdout
    assert "class    overnight: header.x-task report*  (priority 1; waits as long as it takes; keeps 0.05 of the work)" in result.stdout
    assert result.stdout.endswith("examples/penstock.yaml: good\n")


def test_check_says_what_is_left_to_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("classes: [{name: a, when: {prompt_tokens: {gt: 5, le: 9}, stream: true}, total_ms: 5}]\nadmin_key_env: ADMIN")
    result = penstock("check", str(file), ADMIN="x")
    assert "node     none" in result.stdout
    assert "class    a: streamed and prompt tokens > 5 and <= 9  (priority 3; whole answer within 5 ms)" in result.stdout
    assert "(key in ADMIN)" in result.stdout


def test_check_says_what_keys_may_and_what_is_tried_when_all_is_full(tmp_path: Path) -> None:
    file = tmp_path / "full.yaml"
    digest = hashlib.sha256(b"x").hexdigest()
    file.write_text(
        f"keys: [{{name: a, sha256: {digest}, concurrency: 4, limits: [{{tokens: 90000}}, {{cost: 1.5, window_s: 3600}}]}}]\n"
        "classes: [{name: c, value: 2, ladder: [wait, smaller, reject], timeout: {total_ms: 9}}]\n"
        "ladder: [cache, reject]\nsmaller: {big: small}\nprices: {big: {output_per_1m: 2}}"
    )
    told = penstock("check", str(file)).stdout
    assert "key      a: 90,000 tokens in 60 s; 1.5 of cost in 3600 s; 4 requests at once\n" in told
    assert "class    c: everything  (priority 3; whole answer within 9 ms; value 2; ladder wait, smaller, reject)\n" in told
    assert "ladder   cache, reject\nsmaller  small in place of big\n" in told


REQUEST = {
    "key": "research",
    "headers": {"X-Task": "report-7"},
    "body": {"model": "deepseek-chat", "messages": [{"role": "user", "content": "hi"}], "metadata": {"amount": "2e6"}},
}
WALK = """\
request  chat for deepseek-ai/DeepSeek-V3, 8 prompt tokens, key of research
rule     trade-large: matches
           yes  route chat: chat
           yes  metadata.amount > 1000000: '2e6'
rule     trading, overnight, rest: not tried
class    trade-large
priority 3 (the class has 5; the key of research allows at most 3)
value    10
deadline first token within 400.8 ms
ladder   wait, reject
"""


def test_check_walks_a_request_through_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST))
    example = str(ROOT / "examples" / "penstock.yaml")
    result = penstock("check", example, "--request", str(file), **KEYS)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", WALK)
    told = json.loads(penstock("check", example, "--request", str(file), "--json", **KEYS).stdout)
    assert (told["class"], told["priority"], told["ttft_ms"], told["not_tried"]) == (
        "trade-large", 3, 400.8, ["trading", "overnight", "rest"],
    )  # fmt: skip
    assert told["rules"][0]["conditions"][1] == {"of": "metadata.amount", "wants": "> 1000000", "seen": "2e6", "holds": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "stdin: not a request: "),
        ("[]", "stdin: not a request: it must be a JSON object"),
        ('{"modl": 1}', "unknown key 'modl'; give a call's body, or an object of body, headers, key, route"),
        ('{"key": "research"}', "body is missing"),
        ('{"model": "m", "messages": []}', "the gateway would answer 400 (invalid_value): 'messages' must be"),
        ('{"key": "nobody", "body": {}}', "key: no tenant is named 'nobody'; known: trading, research"),
    ],
)
def test_check_refuses_what_is_no_request_in_one_line(given: str, message: str) -> None:
    result = penstock("check", str(ROOT / "examples" / "penstock.yaml"), "--request", "-", input=given, **KEYS)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_check_names_a_request_file_that_is_not_there() -> None:
    result = penstock("check", str(ROOT / "examples" / "penstock.yaml"), "--request", "/nowhere", **KEYS)
    assert (result.returncode, result.stderr) == (2, "penstock: /nowhere: No such file or directory\n")
    assert penstock("check", str(ROOT / "examples" / "penstock.yaml"), "--json", **KEYS).returncode == 2


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_good(example: Path) -> None:
    assert penstock("check", str(example), **KEYS).returncode == 0


def test_export_schema_prints_a_json_schema_with_the_short_forms() -> None:
    schema = json.loads(penstock("export", "schema").stdout)
    config = schema["$defs"]["Config"]
    assert config["additionalProperties"] is False
    assert {"type": "integer", "minimum": 0, "maximum": 65535} in config["properties"]["listen"]["anyOf"]
    assert config["properties"]["probe_s"]["description"] == "Seconds between probes of a node."


def test_generated_pages_are_current() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_up_names_a_taken_port_and_starts_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = penstock("up", "--port", str(port), "--admin-port", "0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("(Address already in use); choose another port with --port\n")
