"""The embedded engine over real sockets: plain bytes, and the official client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from array import array
from base64 import b64decode
from pathlib import Path
from time import monotonic
from typing import Any

import openai
import pytest
from tests.engine.serving import call, chat, client, metrics, on_engine, request, until

from penstock import __version__
from penstock.engine.server import Engines, Options
from penstock.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_the_official_client_gets_an_answer_with_usage() -> None:
    async def test(engines: Engines) -> None:
        async with client(engines) as api:
            answer = await api.chat.completions.create(**chat(max_tokens=5), extra_body={"ignore_eos": True})
            assert answer.choices[0].finish_reason == "length"
            assert len((answer.choices[0].message.content or "").split()) == 5
            assert answer.usage is not None
            assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 5 + answer.usage.prompt_tokens)
            assert [model.id async for model in api.models.list()] == ["deepseek-v3", "DeepSeek-R1"]

    on_engine(test)


def test_a_streamed_answer_says_the_same_as_a_whole_one() -> None:
    async def test(engines: Engines) -> None:
        async with client(engines) as api:
            whole = await api.chat.completions.create(**chat("tell me"))
            chunks = [chunk async for chunk in await api.chat.completions.create(**chat("tell me", stream=True))]
            assert chunks[0].choices[0].delta.role == "assistant"
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
            assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
            assert whole.choices[0].finish_reason == "stop"

    on_engine(test, speed=200.0)


def test_usage_comes_last_and_only_when_asked_for() -> None:
    async def test(engines: Engines) -> None:
        asked = chat(max_tokens=3, stream=True, stream_options={"include_usage": True})
        status, body = await call(engines, "POST", "/v1/chat/completions", asked)
        events = re.findall(rb"data: (.*)\n\n", body)
        assert status == 200
        assert events[-1] == b"[DONE]"
        last = json.loads(events[-2])
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 3
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        assert body.endswith(b"0\r\n\r\n")
        _, body = await call(engines, "POST", "/v1/chat/completions", chat(max_tokens=3, stream=True))
        assert b"usage" not in body

    on_engine(test)


def test_a_repeated_prompt_is_cached_but_for_its_last_block() -> None:
    async def test(engines: Engines) -> None:
        cached = []
        for _ in range(2):
            _, body = await call(engines, "POST", "/v1/chat/completions", chat("word " * 2_000, max_tokens=1))
            cached.append(json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached == [0, 2_048]
        found = await metrics(engines)
        assert found["vllm:prefix_cache_hits_total"] == 2_048

    on_engine(test)


@pytest.mark.parametrize(
    "asked", [{"model": "DeepSeek-R1"}, {"thinking": {"type": "enabled"}}, {"chat_template_kwargs": {"thinking": True}}]
)
def test_thoughts_come_first_in_their_own_field(asked: dict[str, Any]) -> None:
    async def test(engines: Engines) -> None:
        _, body = await call(engines, "POST", "/v1/chat/completions", {**chat("why"), **asked, "stream": True})
        deltas = [json.loads(event)["choices"][0]["delta"] for event in re.findall(rb"data: (\{.*)\n\n", body)]
        kinds = ["reasoning_content" if "reasoning_content" in delta else "content" for delta in deltas[1:-1]]
        assert kinds == sorted(kinds, reverse=True)
        assert set(kinds) == {"reasoning_content", "content"}
        _, body = await call(engines, "POST", "/v1/chat/completions", {**chat("why"), **asked})
        message = json.loads(body)["choices"][0]["message"]
        assert message["reasoning_content"] == "".join(delta.get("reasoning_content", "") for delta in deltas)
        assert message["content"] == "".join(delta.get("content", "") for delta in deltas)
        assert json.loads(body)["usage"]["completion_tokens_details"]["reasoning_tokens"] == kinds.count("reasoning_content")

    on_engine(test, speed=500.0)


def test_thinking_can_be_turned_off() -> None:
    async def test(engines: Engines) -> None:
        asked = {**chat(max_tokens=2), "model": "DeepSeek-R1", "thinking": {"type": "disabled"}}
        _, body = await call(engines, "POST", "/v1/chat/completions", asked)
        assert "reasoning_content" not in json.loads(body)["choices"][0]["message"]

    on_engine(test)


def test_several_choices_and_prompts_are_sequences_of_their_own() -> None:
    async def test(engines: Engines) -> None:
        asked = {"model": "deepseek-v3", "prompt": ["one", "two"], "n": 2, "max_tokens": 3, "ignore_eos": True}
        _, body = await call(engines, "POST", "/v1/completions", asked)
        answer = json.loads(body)
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        assert answer["usage"]["completion_tokens"] == 12
        _, body = await call(engines, "POST", "/v1/completions", {**asked, "stream": True})
        texts = dict.fromkeys(range(4), "")
        for event in re.findall(rb"data: (\{.*)\n\n", body):
            choice = json.loads(event)["choices"][0]
            texts[choice["index"]] += choice["text"]
        assert list(texts.values()) == [choice["text"] for choice in answer["choices"]]

    on_engine(test)


def test_embeddings_are_the_same_each_time_and_in_both_encodings() -> None:
    async def test(engines: Engines) -> None:
        async with client(engines) as api:
            first = await api.embeddings.create(model="deepseek-v3", input=["a", "b"], dimensions=8)
            again = await api.embeddings.create(model="deepseek-v3", input="b", dimensions=8, encoding_format="float")
            assert first.data[1].embedding == pytest.approx(again.data[0].embedding, abs=1e-6)
            assert first.data[0].embedding != first.data[1].embedding
            assert sum(part * part for part in again.data[0].embedding) == pytest.approx(1.0)
        asked = {"model": "deepseek-v3", "input": "b", "dimensions": 8, "encoding_format": "base64"}
        _, body = await call(engines, "POST", "/v1/embeddings", asked)
        packed = array("f", b64decode(json.loads(body)["data"][0]["embedding"]))
        assert list(packed) == pytest.approx(again.data[0].embedding, abs=1e-6)

    on_engine(test)


def test_a_caller_that_leaves_frees_its_slot_within_100_ms() -> None:
    async def test(engines: Engines) -> None:
        async def idle() -> bool:
            found = await metrics(engines)
            return found["vllm:num_requests_running"] == 0

        took = []
        for _ in range(5):  # the best of five: a busy machine may delay one
            async with client(engines) as api:
                stream = await api.chat.completions.create(**chat(max_tokens=100_000, stream=True), extra_body={"ignore_eos": True})
                await anext(aiter(stream))
                assert not await idle()
                left = monotonic()
                await stream.close()
                await until(idle)
                took.append(monotonic() - left)
        assert min(took) < 0.1
        found = await metrics(engines)
        assert found["vllm:kv_cache_usage_perc"] == 0
        assert found['vllm:request_success_total{finished_reason="abort",}'] == 5

    on_engine(test, speed=1.0)


def test_a_caller_that_leaves_before_its_answer_began_is_forgotten_too() -> None:
    async def test(engines: Engines) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", engines.ports[0])
        writer.write(request("POST", "/v1/chat/completions", chat(max_tokens=100_000, ignore_eos=True)))
        engine = engines.nodes[0].engine

        async def busy() -> bool:
            return engine.running == 1

        async def idle() -> bool:
            return engine.running == 0

        await until(busy)
        writer.close()
        await until(idle)

    on_engine(test, speed=1.0)


def test_metrics_count_what_was_served() -> None:
    async def test(engines: Engines) -> None:
        for _ in range(3):
            await call(engines, "POST", "/v1/chat/completions", chat(max_tokens=4, ignore_eos=True))
        found = await metrics(engines)
        assert found["vllm:generation_tokens_total"] == 12
        assert found["vllm:prompt_tokens_total"] > 0
        assert found["vllm:time_to_first_token_seconds_count"] == 3
        assert found['vllm:request_success_total{finished_reason="length",}'] == 3
        assert found["vllm:inter_token_latency_seconds_count"] == 9

    on_engine(test)


async def slow_reader(engines: Engines, **asked: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A caller that takes little before it is read from."""
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plug.connect(("127.0.0.1", engines.ports[0]))
    plug.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=plug, limit=4_096)
    writer.write(request("POST", "/v1/chat/completions", chat(ignore_eos=True, stream=True, **asked)))
    return reader, writer


@pytest.mark.parametrize(("tokens", "choices", "wait_for"), [(30_000, 1, 30_000), (60_000, 2, 70_000)])
def test_a_slow_reader_gets_every_token_in_the_end(tokens: int, choices: int, wait_for: int) -> None:
    async def test(engines: Engines) -> None:
        reader, writer = await slow_reader(engines, max_tokens=tokens, n=choices)

        async def behind() -> bool:
            return (await metrics(engines))["vllm:generation_tokens_total"] >= wait_for

        await until(behind)
        body = await reader.read()
        writer.close()
        assert body.count(b"data: ") == choices * (tokens + 2) + 1
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")

    on_engine(test, speed=1_000.0)


@pytest.mark.parametrize(
    ("status", "path", "body", "message"),
    [
        (400, "/v1/chat/completions", b'{"model":', "truncated"),
        (400, "/v1/chat/completions", {"model": "deepseek-v3"}, "messages"),
        (400, "/v1/chat/completions", {"model": "deepseek-v3", "messages": []}, "messages"),
        (400, "/v1/chat/completions", chat(max_tokens="many"), "max_tokens"),
        (400, "/v1/chat/completions", chat(max_tokens=0), "max_tokens"),
        (400, "/v1/chat/completions", chat(max_tokens=10**9), "maximum context length"),
        (400, "/v1/chat/completions", chat(max_tokens=2, min_tokens=3), "min_tokens"),
        (400, "/v1/chat/completions", chat(n=0), "n must"),
        (404, "/v1/chat/completions", {**chat(), "model": "gpt"}, "does not exist"),
        (400, "/v1/completions", {"model": "deepseek-v3", "prompt": []}, "empty"),
        (400, "/v1/embeddings", {"model": "deepseek-v3"}, "input"),
        (400, "/v1/embeddings", {"model": "deepseek-v3", "input": "a", "dimensions": 0}, "dimensions"),
        (404, "/v1/nothing", {}, "Not Found"),
        (405, "/v1/models", {}, "Not Allowed"),
        (400, "/faults", {"weather": "bad"}, "weather"),
    ],
)
def test_bad_calls_are_refused_as_vllm_refuses_them(status: int, path: str, body: object, message: str) -> None:
    async def test(engines: Engines) -> None:
        got, text = await call(engines, "POST", path, body)
        error = json.loads(text)["error"]
        assert (got, error["code"]) == (status, status)
        assert message in error["message"]

    on_engine(test)


def test_a_key_is_asked_for_when_one_is_set() -> None:
    async def test(engines: Engines) -> None:
        assert (await call(engines, "GET", "/v1/models"))[0] == 401
        assert (await call(engines, "GET", "/v1/models", headers="authorization: Bearer sesame\r\n"))[0] == 200
        assert (await call(engines, "GET", "/health"))[0] == 200

    on_engine(test, key="sesame")


def test_faults_touch_as_many_calls_as_asked() -> None:
    async def test(engines: Engines) -> None:
        await call(engines, "POST", "/faults", {"status": 503, "count": 2})
        got = [(await call(engines, "POST", "/v1/chat/completions", chat(max_tokens=1)))[0] for _ in range(3)]
        assert got == [503, 503, 200]
        await call(engines, "POST", "/faults", {"status": 500})
        got = [(await call(engines, "POST", "/v1/completions", {"model": "deepseek-v3", "prompt": "a"}))[0] for _ in range(3)]
        assert got == [500, 500, 500]
        await call(engines, "POST", "/faults", {})
        assert (await call(engines, "POST", "/v1/embeddings", {"model": "deepseek-v3", "input": "a"}))[0] == 200

    on_engine(test)


def test_a_cut_breaks_off_after_so_many_tokens_and_frees_the_slot() -> None:
    async def test(engines: Engines) -> None:
        await call(engines, "POST", "/faults", {"cut_after_tokens": 3, "count": 2})
        status, body = await call(engines, "POST", "/v1/chat/completions", chat(max_tokens=50_000, ignore_eos=True, stream=True))
        assert status == 200
        assert body.count(b'"content":" ') == 3
        assert not body.endswith(b"0\r\n\r\n")
        assert engines.nodes[0].engine.running == 0
        assert await call(engines, "POST", "/v1/chat/completions", chat(max_tokens=5, ignore_eos=True)) == (0, b"")

    on_engine(test)


def test_a_stalled_call_whose_caller_leaves_never_reaches_the_engine() -> None:
    async def test(engines: Engines) -> None:
        await call(engines, "POST", "/faults", {"stall_s": 0.05, "count": 1})
        _, writer = await asyncio.open_connection("127.0.0.1", engines.ports[0])
        writer.write(request("POST", "/v1/chat/completions", chat(max_tokens=1)))

        async def stalled() -> bool:
            _, body = await call(engines, "GET", "/faults")
            return bool(json.loads(body)["count"] == 0)

        await until(stalled)
        writer.close()
        await asyncio.sleep(0.1)  # nothing tells of what does not happen
        assert (await metrics(engines))["vllm:prompt_tokens_total"] == 0

    on_engine(test)


def test_the_small_routes_answer() -> None:
    async def test(engines: Engines) -> None:
        assert await call(engines, "GET", "/health") == (200, b"")
        assert await call(engines, "GET", "/ping") == (200, b"")
        _, body = await call(engines, "GET", "/version")
        assert json.loads(body) == {"version": __version__}
        too_long = {"model": "deepseek-v3", "input": "word " * 500_000}
        assert (await call(engines, "POST", "/v1/embeddings", too_long))[0] == 400
        await call(engines, "POST", "/faults", {"status": 500})
        assert (await call(engines, "POST", "/v1/embeddings", {"model": "deepseek-v3", "input": "a"}))[0] == 500

    on_engine(test)


def test_a_caller_of_embeddings_that_leaves_is_forgotten() -> None:
    async def test(engines: Engines) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", engines.ports[0])
        writer.write(request("POST", "/v1/embeddings", {"model": "deepseek-v3", "input": "word " * 300_000}))
        engine = engines.nodes[0].engine

        async def busy() -> bool:
            return engine.running == 1

        async def idle() -> bool:
            return engine.running == 0

        await until(busy)
        writer.close()
        await until(idle)
        assert engine.prompt_tokens == 0

    on_engine(test, speed=1.0)


def test_a_stall_delays_a_call_and_slow_stretches_every_step() -> None:
    async def test(engines: Engines) -> None:
        async def seconds(**asked: Any) -> float:
            began = monotonic()
            await call(engines, "POST", "/v1/chat/completions", chat(ignore_eos=True, **asked))
            return monotonic() - began

        await call(engines, "POST", "/faults", {"stall_s": 0.3, "count": 1})
        assert await seconds(max_tokens=1) >= 0.3
        await call(engines, "POST", "/faults", {"slow": 100})
        assert await seconds(max_tokens=10) >= 10 * 0.006 * 100 / 20
        _, body = await call(engines, "GET", "/faults")
        assert json.loads(body) == {"slow": 100.0}

    on_engine(test)


def test_a_port_that_is_taken_closes_those_opened_before() -> None:
    async def test(engines: Engines) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            taken = other.getsockname()[1]
            more = Engines(Options(nodes=2, port=taken - 1))
            with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:({taken}|{taken - 1}): Address already in use"):
                await more.open()
        assert more.ports == []

    on_engine(test)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "penstock", "engine", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_says_where_it_listens_and_stops_cleanly(number: int) -> None:
    with start("--nodes", "2", "--port", "0", "--model", "m") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        ports = [int(port) for port in re.findall(r"http://127.0.0.1:(\d+)", line)]
        assert len(set(ports)) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


def test_sigterm_lets_an_answer_under_way_finish() -> None:
    with start("--nodes", "1", "--port", "0", "--speed", "5") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])

        async def test() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("POST", "/v1/chat/completions", chat(max_tokens=200, ignore_eos=True, stream=True)))
            body = await reader.readuntil(b"content")
            process.send_signal(signal.SIGTERM)
            body += await reader.read()
            writer.close()
            return body

        assert asyncio.run(test()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert process.wait(timeout=20) == 0


def test_what_cannot_be_served_is_one_line_and_exit_code_2() -> None:
    with start("--nodes", "1", "--port", "0") as first:
        assert first.stdout is not None
        port = first.stdout.readline().rsplit(":", 1)[1].strip()
        for arguments, message in (
            (("--port", port), f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            (("--port", "65535"), "beyond 65535"),
            (("--profile", "abacus"), "no profile 'abacus'"),
            (("--host", "0.0.0.0"), "not a loopback address"),
            (("--key-env", "PENSTOCK_NO_SUCH"), "PENSTOCK_NO_SUCH is not set"),
        ):
            with start(*arguments) as process:
                out, err = process.communicate(timeout=20)
            assert (process.returncode, out, err.count("\n")) == (2, "", 1)
            assert message in err
        first.terminate()


def test_an_unknown_model_is_the_clients_not_found() -> None:
    async def test(engines: Engines) -> None:
        async with client(engines) as api:
            with pytest.raises(openai.NotFoundError):
                await api.chat.completions.create(**{**chat(), "model": "gpt"})

    on_engine(test)
