"""`penstock up` as a person meets it: started, asked with the line it prints, stopped with Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from tests.supervisor.stage import PATIENCE_S, Stage, gone, running


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, following each other, as the demo engines' do."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        ports = list(range(first, first + count))
        try:
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
        except (OSError, OverflowError):
            continue
        return ports


def up(*arguments: str) -> AbstractContextManager[Stage]:
    api, admin, engine, _ = free_ports(4)
    ports = ("--port", str(api), "--admin-port", str(admin), "--engine-port", str(engine))
    return running("-m", "penstock", "up", *ports, *arguments)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_line_it_prints_is_answered_and_ctrl_c_leaves_nothing() -> None:
    with up("--engines", "2", "--speed", "10") as stage:
        stage.wait_for("Ctrl-C stops everything")
        processes = children(stage.process.pid)
        assert len(processes) == 2
        line = stage.wait_for(r"(curl -N .*\\\n.*)\n")[1]
        answer = subprocess.run(["bash", "-c", f"{line} -sS"], capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
        assert answer.rstrip().endswith("data: [DONE]")
        assert json.loads(answer.splitlines()[0].removeprefix("data: "))["object"] == "chat.completion.chunk"
        for pattern in (r"metrics +(http\S+)", r"state +(http\S+)"):
            with urllib.request.urlopen(stage.wait_for(pattern)[1], timeout=PATIENCE_S) as page:
                assert page.status == 200
        stage.process.send_signal(signal.SIGINT)
        assert stage.end() == 0
        assert all(gone(pid) for pid in processes)


def test_deepseeks_own_names_are_answered() -> None:
    with up("--engines", "1", "--speed", "10") as stage:
        url = stage.wait_for(r"API +(http\S+)")[1]
        stage.wait_for("Ctrl-C stops everything")
        for name, model, thinks in (("deepseek-chat", "deepseek-v3", False), ("deepseek-reasoner", "deepseek-r1", True)):
            call = {"model": name, "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
            asked = urllib.request.Request(f"{url}/chat/completions", json.dumps(call).encode())
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as page:
                answer = json.load(page)
            assert answer["model"] == model
            assert ("reasoning_content" in answer["choices"][0]["message"]) is thinks


def test_a_killed_gateway_comes_back_and_answers() -> None:
    with up("--engines", "1", "--speed", "10", "--model", "mine", "--model", "mine") as stage:
        stage.wait_for("Ctrl-C stops everything")
        url = stage.wait_for(r"API +(http\S+)")[1]
        os.kill(children(stage.process.pid)[-1], signal.SIGKILL)
        stage.wait_for(r"gateway \| ended with SIGKILL; starting again in 0.2 s\n(.*\n)*gateway \| API")
        with urllib.request.urlopen(f"{url}/models", timeout=PATIENCE_S) as page:
            assert [model["id"] for model in json.load(page)["data"]] == ["mine", "deepseek-chat"]


def test_its_own_nodes_and_class_reach_the_gateway(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    port = free_ports(1)[0]
    file.write_text(f"nodes: [{{name: mine, url: 'http://127.0.0.1:{port}', models: [m]}}]\naliases: {{other: m}}\n")
    with up("--config", str(file)) as stage:
        stage.wait_for("one gateway before 1 node\n")
        assert len(children(stage.process.pid)) == 1
        url = stage.wait_for(r"API +(http\S+)")[1]
        with urllib.request.urlopen(f"{url}/models", timeout=PATIENCE_S) as page:
            assert re.findall(r'"id":"(\w+)"', page.read().decode()) == ["m", "other"]


def test_a_persons_own_model_is_served(gguf_file: Path) -> None:
    with up("--model", str(gguf_file), "--parallel", "2", "--context", "1024") as stage:
        stage.wait_for("one gateway before tiny-deepseek, 2 answers of 1024 tokens at once")
        line = stage.wait_for(r"(curl -N .*\\\n.*)\n")[1]
        stage.wait_for("Ctrl-C stops everything")
        answer = subprocess.run(["bash", "-c", f"{line} -sS"], capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
        assert answer.rstrip().endswith("data: [DONE]")
        url = stage.wait_for(r"API +(http\S+)")[1]
        with urllib.request.urlopen(f"{url}/models", timeout=PATIENCE_S) as page:
            assert [model["id"] for model in json.load(page)["data"]] == ["tiny-deepseek", "tiny", "deepseek-chat"]
        with urllib.request.urlopen(stage.wait_for(r"state +(http\S+)")[1], timeout=PATIENCE_S) as page:
            (node,) = json.load(page)["nodes"]
        assert (node["name"], node["state"], node["reported"]["engine"]) == ("llama", "up", "llama.cpp")
        assert node["kv_tokens"] <= 2 * 1024
        processes = children(stage.process.pid)
        stage.process.send_signal(signal.SIGINT)
        assert stage.end() == 0
        assert all(gone(pid) for pid in processes)


def test_ctrl_c_lets_a_persons_own_model_finish(gguf_file: Path) -> None:
    with up("--model", str(gguf_file)) as stage:
        stage.wait_for("Ctrl-C stops everything")
        call = {"model": "tiny", "max_tokens": 3000, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        url = stage.wait_for(r"API +(http\S+)")[1]
        asked = urllib.request.Request(f"{url}/chat/completions", json.dumps(call).encode())
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            answer.readline()
            stage.process.send_signal(signal.SIGINT)
            assert answer.read().rstrip().endswith(b"data: [DONE]")
        assert stage.end() == 0


def test_what_keeps_a_model_from_being_served_is_one_line(gguf_file: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    nodes = tmp_path / "penstock.yaml"
    nodes.write_text("nodes: [{name: a, url: 'http://127.0.0.1:1'}]\n")
    for arguments, why in {
        ("--model", str(tmp_path / "absent.gguf")): "there is no such file",
        ("--model", str(text)): "is not a GGUF file",
        ("--model", str(tmp_path)): "is a folder",
        ("--model", str(gguf_file), "--model", "deepseek-v3"): "one model file is served at once",
        ("--model", str(gguf_file), "--config", str(nodes)): "--model: the configuration names nodes already",
        ("--parallel", "2"): "--parallel: needs a model file",
    }.items():
        with up(*arguments) as stage:
            assert stage.end() == 2
            assert stage.printed.startswith("penstock: ")
            assert stage.printed.count("\n") == 1
            assert why in stage.printed
