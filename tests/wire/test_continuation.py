"""What is asked of the engine that goes on with an answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.config import Engine
from penstock.facts import Form
from penstock.wire.continuation import EMBEDDED, NOWAY, Rest, way

VLLM, LLAMA = way(Engine.VLLM), way(Engine.LLAMA_CPP)
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}], "stream": True}


def rest(fields: dict[str, Any], content: str = "One two", thoughts: str = "", tokens: int = 2, route: str = "chat") -> Rest:
    return Rest(route, msgspec.json.encode(fields), (thoughts, content), tokens)


def body(one: Rest, how: Any = VLLM) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(one.body(how))
    return found


def test_nodes_go_on_as_their_kind_does() -> None:
    assert way(Engine.AUTO, "vllm") == way(Engine.VLLM)
    assert way(Engine.AUTO, "llamacpp") == way(Engine.LLAMA_CPP)
    assert Form.THOUGHTS in way(Engine.AUTO, EMBEDDED).forms
    assert all(Form.THOUGHTS not in way(kind).forms for kind in Engine)
    assert way(Engine.AUTO, "penstock") == way(Engine.AUTO) == way(Engine.OPENAI, "vllm") == NOWAY


def test_a_message_is_appended_and_the_callers_bytes_stay() -> None:
    raw = b'{"model":"m","messages" : [ {"role":"user","content":"\\u0061"} ] ,"seed":1e3}'
    got = Rest("chat", raw, ("Hm", "One"), 3).body(VLLM)
    assert b'[ {"role":"user","content":"\\u0061"} ,{"role":"assistant","content":"One","reasoning_content":"Hm"}]' in got
    assert b'"seed":1e3' in got


def test_limits_are_what_is_left_of_them() -> None:
    got = body(rest(ASKED | {"max_tokens": 10, "max_completion_tokens": 9, "min_tokens": 1}, tokens=4))
    assert (got["max_tokens"], got["max_completion_tokens"], got["min_tokens"]) == (6, 5, 0)
    assert rest(ASKED | {"max_tokens": 10, "max_completion_tokens": 9}, tokens=4).left(VLLM) == 5
    # An engine cannot be asked for nothing.
    done = rest(ASKED | {"max_tokens": 4}, tokens=4)
    assert (body(done)["max_tokens"], done.left(VLLM)) == (1, 0)
    assert rest(ASKED).left(VLLM) == -1
    assert "max_tokens" not in body(rest(ASKED))


def test_a_completion_goes_on_behind_its_prompt() -> None:
    for prompt in ("a \u00e9\n", ["a \u00e9\n"]):
        one = rest({"model": "m", "prompt": prompt}, ' "x"', route="completions")
        assert one.form is Form.COMPLETION
        assert body(one)["prompt"] == 'a \u00e9\n "x"'
        # OpenAI's default length, which vLLM has too.
        assert body(one)["max_tokens"] == 14
        assert "max_tokens" not in body(one, LLAMA)


@pytest.mark.parametrize("prompt", [[1, 2], ["a", "b"], [[1]], 5])
def test_prompts_that_are_not_one_text_cannot(prompt: object) -> None:
    with pytest.raises(ValueError, match="prompt"):
        rest({"model": "m", "prompt": prompt}, route="completions")


@pytest.mark.parametrize(
    ("more", "about"),
    [
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"n": 2}, "choices"),
        ({"best_of": 2}, "choices"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"stream_options": {"continuous_usage_stats": True}}, "usage"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "assistant"),
        ({"stop": 5}, "stop|Expected"),
        ({"max_tokens": "x"}, "Expected"),
    ],
)
def test_what_may_not_be_exact_is_refused(more: dict[str, Any], about: str) -> None:
    with pytest.raises(ValueError, match=about):
        rest(ASKED | more)


def test_what_says_nothing_is_no_hindrance() -> None:
    nothing = {"tools": [], "logprobs": False, "response_format": {"type": "text"}, "echo": None, "n": 1, "stream_options": None}
    assert rest(ASKED | nothing).form is Form.CHAT


def test_more_than_text_is_refused() -> None:
    with pytest.raises(ValueError, match="more than text"):
        Rest("chat", msgspec.json.encode(ASKED), None, 2)


def test_white_space_at_the_end_is_asked_for_again_where_a_template_may_drop_it() -> None:
    one = rest(ASKED | {"max_tokens": 9}, "One\n\n")
    assert (one.cut(VLLM), one.kept(VLLM), one.left(VLLM)) == (2, 1, 8)
    assert body(one)["messages"][-1]["content"] == "One"
    assert one.cut(LLAMA) == 0
    assert rest({"model": "m", "prompt": "a"}, "One\n\n", route="completions").cut(VLLM) == 0
    thought = rest(ASKED, "", "Hm\n")
    assert (thought.form, thought.cut(VLLM)) == (Form.THOUGHTS, 1)
    assert body(thought)["messages"][-1] == {"role": "assistant", "content": "", "reasoning_content": "Hm"}


def test_where_nothing_is_left_the_call_is_asked_again() -> None:
    assert body(rest(ASKED, "\n\n"))["messages"] == ASKED["messages"]


@pytest.mark.parametrize(
    ("stop", "content", "again"),
    [("END", "One E", 1), ("END", "One EN", 2), (["x", " END"], "One EN", 3), ("END", "One END", 0), ("aab", "aa", 2), ("", "a", 0)],
)
def test_the_beginning_of_a_stop_sequence_is_asked_for_again(stop: object, content: str, again: int) -> None:
    assert rest(ASKED | {"stop": stop}, content).cut(LLAMA) == again


def test_llama_cpp_is_told_nothing_but_the_message() -> None:
    got = body(rest(ASKED), LLAMA)
    assert got["messages"][-1]["content"] == "One two"
    assert "continue_final_message" not in got
