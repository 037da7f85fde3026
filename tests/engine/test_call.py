from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.engine import call, text
from penstock.errors import CallError

MODELS = ("m", "some-R1")


def read(chat: bool = True, **fields: Any) -> call.Call:
    asked = {"model": "m", **({"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}), **fields}
    return call.read(chat, msgspec.json.encode(asked), MODELS, 10_000)


def test_an_answer_is_as_long_as_its_prompt_says_unless_the_caller_limits_it() -> None:
    natural = read().parts[0]
    assert natural.stopped
    assert natural.output_tokens == text.natural_tokens(natural.seed)
    longer = read(max_tokens=natural.output_tokens + 1).parts[0]
    assert (longer.output_tokens, longer.stopped) == (natural.output_tokens, True)
    shorter = read(max_completion_tokens=natural.output_tokens - 1, max_tokens=9_000).parts[0]
    assert (shorter.output_tokens, shorter.stopped) == (natural.output_tokens - 1, False)


def test_a_caller_that_ignores_the_end_gets_exactly_its_limit() -> None:
    assert read(max_tokens=5_000, ignore_eos=True).parts[0].output_tokens == 5_000
    assert read(ignore_eos=True).parts[0].stopped


def test_min_tokens_puts_the_end_off() -> None:
    natural = read().parts[0].output_tokens
    assert read(min_tokens=natural + 7).parts[0].output_tokens == natural + 7


def test_a_completion_without_a_limit_has_openais_sixteen_tokens() -> None:
    assert read(chat=False, ignore_eos=True).parts[0].output_tokens <= call.COMPLETION_TOKENS


def test_prompts_are_strings_tokens_or_lists_of_either() -> None:
    assert len(read(chat=False, prompt="a").parts) == 1
    assert [part.prompt_tokens for part in read(chat=False, prompt=[1, 2, 3]).parts] == [3]
    assert [part.prompt_tokens for part in read(chat=False, prompt=[[1, 2, 3], [4]]).parts] == [3, 1]
    assert len(read(chat=False, prompt=["a", "b"], n=3).parts) == 6


def test_choices_of_one_prompt_say_different_things_and_share_its_blocks() -> None:
    one, other = read(messages=[{"role": "user", "content": "x" * 5_000}], n=2).parts
    assert one.seed != other.seed
    assert one.blocks == other.blocks
    assert len(one.blocks) == 2


def test_only_thinking_models_think_unless_told() -> None:
    assert not read().parts[0].reasoning_tokens
    assert read(model="some-R1").parts[0].reasoning_tokens
    assert read(thinking={"type": "enabled"}).parts[0].reasoning_tokens
    assert not read(model="some-R1", thinking={"type": "disabled"}).parts[0].reasoning_tokens
    assert not read(model="some-R1", chat_template_kwargs={"thinking": False}).parts[0].reasoning_tokens
    assert not read(model="some-R1", reasoning_effort="none").parts[0].reasoning_tokens
    assert read(reasoning_effort="low").parts[0].reasoning_tokens
    assert read(enable_thinking=True).parts[0].reasoning_tokens
    assert not read(chat=False, model="some-R1").parts[0].reasoning_tokens


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'"a"', b'{"model":1}', b"\xff", b"[" * 5_000, b'{"model":"m","messages":"hi"}'])
def test_what_is_no_call_is_refused(body: bytes) -> None:
    with pytest.raises(CallError) as refused:
        call.read(True, body, MODELS, 10_000)
    assert refused.value.status == 400


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(CallError, match="maximum context length is 10000"):
        read(messages=[{"role": "user", "content": "x" * 40_000}])
    with pytest.raises(CallError, match="maximum context length is 10000"):
        read(max_tokens=9_999)


def test_an_embedding_call_counts_all_its_texts() -> None:
    one = call.read_embedding(b'{"model":"m","input":["aaaa bbbb","c"],"encoding_format":"base64"}', MODELS)
    assert one.texts == (b'"aaaa bbbb"', b'"c"')
    assert (one.prompt_tokens, one.dimensions, one.base64) == (3, 256, True)
    with pytest.raises(CallError, match="empty"):
        call.read_embedding(b'{"model":"m","input":[]}', MODELS)
