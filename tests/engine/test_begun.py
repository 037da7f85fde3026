"""An answer that another engine began goes on as if it had never broken off."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import call
from penstock.engine.answer import Answer
from penstock.engine.text import WORDS, Voice

MODELS = ("m", "some-r1")
ASKED = b'[ {"role":"user", "content":"Tell me \\u00e9verything."} ]'


class Nobody:
    paused = False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self.body = body

    def start(self, status: int, headers: bytes) -> None: ...
    def send(self, data: bytes) -> None: ...
    def end(self, data: bytes = b"") -> None: ...
    def abort(self) -> None: ...


def read(chat: bool, fields: dict[str, Any]) -> call.Call:
    return call.read(chat, msgspec.json.encode(fields), MODELS, 100_000)


def texts(chat: bool, fields: dict[str, Any]) -> tuple[str, str, str, int]:
    """Thoughts, text, why it ended, and prompt tokens."""
    asked = read(chat, fields)
    caller = Nobody()
    answer = Answer(caller, asked, chat, "x", 1, 0.0)
    answer.start(answer.choices[0], 0)
    answer.finish(answer.choices[0])
    whole = msgspec.json.decode(caller.body)
    choice = whole["choices"][0]
    said = choice["message"] if chat else {"content": choice["text"]}
    return said.get("reasoning_content", ""), said["content"], choice["finish_reason"], whole["usage"]["prompt_tokens"]


def chat(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": msgspec.Raw(ASKED), **more}


def going_on(thoughts: str, content: str, model: str = "m", **more: Any) -> dict[str, Any]:
    begun = {"role": "assistant", "content": content} | ({"reasoning_content": thoughts} if thoughts else {})
    messages = ASKED[:-1] + b"," + msgspec.json.encode(begun) + b"]"
    return chat(model, continue_final_message=True, add_generation_prompt=False, **more) | {"messages": msgspec.Raw(messages)}


@given(st.sampled_from(MODELS), st.floats(0, 1))
def test_a_chat_goes_on_from_any_letter(model: str, share: float) -> None:
    thoughts, content, reason, prompt = texts(True, chat(model))
    at = round(share * len(thoughts + content))
    begun = (thoughts + content)[:at]
    more = texts(True, going_on(begun[: len(thoughts)], begun[len(thoughts) :], model))
    assert begun[: len(thoughts)] + more[0] == thoughts
    assert begun[len(thoughts) :] + more[1] == content
    assert more[2] == reason
    assert more[3] >= prompt


@given(st.floats(0, 1), st.integers(1, 60), st.text(max_size=40))
def test_a_completion_goes_on_from_any_letter(share: float, most: int, prompt: str) -> None:
    fields = {"model": "m", "prompt": prompt + " the gate", "max_tokens": most}
    _, whole, reason, tokens = texts(False, fields)
    at = round(share * len(whole))
    ends = [word.end() for word in re.finditer(r" ?[^ ]+", whole)]
    written = sum(end <= at for end in ends)
    if written == most:
        return
    more = texts(False, {"model": "m", "prompt": prompt + " the gate" + whole[:at], "max_tokens": most - written})
    assert whole[:at] + more[1] == whole
    assert more[2] == reason
    assert tokens <= more[3] <= tokens + written + 1


def test_the_emitted_text_counts_as_prompt() -> None:
    whole = read(True, chat(max_tokens=50)).parts[0]
    text = Voice(whole.seed).words(0, 20).decode()
    rest = read(True, going_on("", text, max_tokens=30)).parts[0]
    assert rest.prompt_tokens == whole.prompt_tokens + 20
    assert rest.output_tokens == whole.output_tokens - 20
    assert rest.stopped == whole.stopped


def test_limits_count_what_is_left() -> None:
    natural = read(True, chat()).parts[0].output_tokens
    text = Voice(read(True, chat()).parts[0].seed).words(0, natural).decode()
    over = read(True, going_on("", text, max_tokens=1)).parts[0]
    assert (over.output_tokens, over.stopped) == (0, True)
    longer = read(True, going_on("", text, max_tokens=9, min_tokens=3)).parts[0]
    assert (longer.output_tokens, longer.stopped) == (3, True)


@pytest.mark.parametrize("last", [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}])
def test_other_last_messages_are_part_of_the_prompt(last: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "a"}, last]
    part = read(True, {"model": "m", "messages": messages, "continue_final_message": True}).parts[0]
    assert not part.begun


def test_a_long_prompt_of_known_words_is_looked_at_once() -> None:
    prompt = "x" + b"".join(WORDS[index % 7] for index in range(200_000)).decode()
    assert read(False, {"model": "m", "prompt": prompt[:350_000], "max_tokens": 5}).parts[0].output_tokens == 5


def test_several_choices_are_not_begun() -> None:
    assert not read(True, going_on("", " the", n=2)).parts[0].begun


def test_a_prompt_of_tokens_or_of_one_word_is_no_answer() -> None:
    assert read(False, {"model": "m", "prompt": [1, 2], "max_tokens": 2}).parts[0].begun == 0
    assert read(False, {"model": "m", "prompt": "word", "max_tokens": 2}).parts[0].begun == 0


def test_a_last_message_that_is_no_object_of_text_is_prompt() -> None:
    for content in (["a part"], 3, {"text": " the"}):
        messages = ASKED[:-1] + b"," + msgspec.json.encode({"role": "assistant", "content": content}) + b"]"
        body = chat("m", continue_final_message=True, add_generation_prompt=False) | {"messages": msgspec.Raw(messages)}
        assert not read(True, body).parts[0].begun
