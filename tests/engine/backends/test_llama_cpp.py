"""A real llama.cpp server in its own process, behind a real gateway, asked by the official client."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine import gguf_model
from tests.engine.llama import HELLO, NAME, Llama, before, gauge, llama, run, said, streamed, until

from penstock.engine.backends import gguf, llama_cpp
from penstock.errors import PenstockError

PROMPTS = [f"Question {number}" for number in range(8)]


@pytest.fixture(scope="module")
def server(gguf_file: Path) -> Iterator[Llama]:
    with llama(gguf_file, "--context", "2048") as started:
        yield started


async def idle(server: Llama) -> bool:
    return await gauge(server.url, "requests_processing") == 0


def test_answers_come_whole_and_streamed_and_are_the_same(server: Llama) -> None:
    async def test() -> None:
        async with before(server.url) as (_, client):
            whole = await client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=40, temperature=0)
            assert whole.usage is not None
            assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (40, "length")
            assert await streamed(client, HELLO) == whole.choices[0].message.content

    run(test)


def test_the_likeliest_answer_is_the_same_alone_and_among_others(server: Llama) -> None:
    async def test() -> None:
        async with before(server.url) as (_, client):
            alone = [await said(client, prompt) for prompt in PROMPTS]
            assert len(set(alone)) > 4
            together = await asyncio.gather(*(said(client, prompt) for prompt in PROMPTS * 3))
            assert together == alone * 3

    run(test)


def test_a_stream_goes_on_exactly_from_where_an_assistants_message_ends(server: Llama) -> None:
    async def test() -> None:
        async with before(server.url) as (_, client):
            whole = await streamed(client, HELLO, 60)
            for cut in range(1, 60, 7):
                begun = [*HELLO, {"role": "assistant", "content": whole[:cut]}]
                assert await streamed(client, begun, 60 - cut) == whole[cut:]

    run(test)


def test_its_slots_are_used_together_and_reported(server: Llama) -> None:
    async def test() -> None:
        async with before(server.url) as (gateway, client):
            calls = asyncio.gather(*(said(client, prompt, 400) for prompt in PROMPTS))
            most = 0
            while not calls.done():
                reported = gateway.snapshot().nodes[0].reported
                most = max(most, reported.running or 0)
                await asyncio.sleep(0.01)
            assert all(len(answer) == 400 for answer in await calls)
            assert 2 <= most <= 4
            await until(lambda: idle(server))

    run(test)


def test_the_probe_knows_what_it_is_and_what_it_serves(server: Llama) -> None:
    async def test() -> None:
        async with before(server.url, engine="auto", models=()) as (gateway, _):
            while (reported := gateway.snapshot().nodes[0].reported).running is None:
                await asyncio.sleep(0.01)
            assert (reported.engine, reported.models, reported.running, reported.waiting) == ("llama.cpp", (NAME,), 0, 0)

    run(test)


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_leaves_frees_the_slot(gguf_file: Path, stream: bool) -> None:
    async def test(server: Llama) -> None:
        async with before(server.url, max_running=1) as (_, client):
            call: Any = asyncio.ensure_future(said(client, tokens=6000, stream=stream) if not stream else _begun(client))
            await until(lambda: _busy(server))
            if stream:
                await (await call).close()
            else:
                call.cancel()
            await until(lambda: idle(server))
            assert await gauge(server.url, "tokens_predicted_total") < 6000
            assert len(await said(client)) == 40

    with llama(gguf_file, "--parallel", "1") as server:
        run(lambda: test(server))


async def _busy(server: Llama) -> bool:
    return not await idle(server)


async def _begun(client: Any, tokens: int = 6000) -> Any:
    """A stream whose first piece is there."""
    stream = await client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=tokens, temperature=0, stream=True)
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            return stream
    raise AssertionError("ended before it began")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_what_it_has_begun(gguf_file: Path, number: signal.Signals) -> None:
    async def test(server: Llama) -> None:
        async with before(server.url) as (gateway, client):
            stream = await _begun(client, 3000)
            server.stage.process.send_signal(number)
            while gateway.snapshot().nodes[0].state == "up":
                await asyncio.sleep(0.01)
            text = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert len("".join(text)) == 2999

    with llama(gguf_file) as server:
        run(lambda: test(server))
        assert server.stage.end() == 0
        assert "answers to finish: 1," in server.stage.printed


def test_asked_twice_it_stops_at_once(gguf_file: Path) -> None:
    async def test(server: Llama) -> None:
        async with before(server.url) as (_, client):
            await _begun(client)
            server.stage.process.terminate()
            await asyncio.to_thread(server.stage.wait_for, "answers to finish: 1,")
            server.stage.process.terminate()
            assert await asyncio.to_thread(server.stage.end) == 0

    with llama(gguf_file) as server:
        run(lambda: test(server))


def test_a_key_is_asked_for_where_one_is_set(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_KEY", "sk-llama")

    async def test(server: Llama) -> None:
        async with before(server.url, key_env="LLAMA_KEY") as (_, client):
            assert len(await said(client)) == 40
        async with before(server.url) as (_, client):
            with pytest.raises(Exception, match="50[23]"):
                await said(client)

    with llama(gguf_file, "--key-env", "LLAMA_KEY") as server:
        run(lambda: test(server))


def refused(*arguments: str) -> str:
    """What `penstock engine --backend llama.cpp` says on stderr when it ends with exit code 2."""
    words = [sys.executable, "-m", "penstock", "engine", "--backend", "llama.cpp", "--port", "0", *arguments]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (2, "")
    return ended.stderr


def test_a_file_that_is_no_model_is_named_in_one_line(gguf_file: Path, tmp_path: Path) -> None:
    whole = gguf_file.read_bytes()
    wrong = {
        "absent.gguf": (None, "there is no such file"),
        "text.gguf": (b"Hello, this is no model at all.", "is not a GGUF file"),
        "empty.gguf": (b"", "is not a GGUF file"),
        "half.gguf": (whole[: len(whole) // 2], "is cut off at"),
        "head.gguf": (whole[:3000], "is cut off at 3,000 bytes"),
    }
    for name, (content, why) in wrong.items():
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        said = refused("--model", str(file))
        assert said.count("\n") == 1
        assert name in said and why in said
    assert "is a folder" in refused("--model", str(tmp_path))
    assert "name its GGUF file" in refused()


def test_an_architecture_that_llama_cpp_does_not_know_is_named(gguf_file: Path, tmp_path: Path) -> None:
    said = refused("--model", str(gguf_model.write(tmp_path / "odd.gguf", architecture="banana")))
    assert said.count("\n") == 1
    assert "unknown model architecture: 'banana'" in said


def test_a_file_that_is_cut_in_its_last_tensor_is_refused_in_one_line(gguf_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(gguf_file.read_bytes()[:-100])
    assert "corrupted or incomplete" in (said := refused("--model", str(file)))
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_named(server: Llama, gguf_file: Path) -> None:
    port = server.url.rpartition(":")[2]
    assert f"--port: cannot listen on 127.0.0.1:{port}: Address already in use" in refused("--model", str(gguf_file), "--port", port)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(PenstockError, match=r"pip install 'penstock\[llama\]'"):
        llama_cpp.serve(llama_cpp.Options(model=Path("any.gguf")))


def test_an_answer_has_as_much_room_as_the_model_was_made_for(gguf_file: Path) -> None:
    model = gguf.read(gguf_file)
    assert llama_cpp.context(model, None) == 8192
    assert llama_cpp.context(model, 100) == 100
    assert llama_cpp.threads() >= 1


def test_while_a_model_loads_there_is_a_line_now_and_then(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llama_cpp, "SAY_S", 0.001)

    async def test() -> None:
        model = gguf.read(gguf_file)
        loaded = await llama_cpp._load(llama_cpp.Options(model=gguf_file), model, "secret")
        assert loaded.listening_address.startswith("http://127.0.0.1:")

    run(test)
    assert "loading tiny.gguf (0.0 GB): 0 s" in capsys.readouterr().out
