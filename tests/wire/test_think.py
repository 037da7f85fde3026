"""Where thoughts end and the answer begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.think import LEAD_CHARS, Splitter, alone, beginning, begins_inside

pieces = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "</thi", "nk>", "\n", " ", "a", "é", "so", "x" * 9]), max_size=14
)


def split(*parts: str, inside: bool = False) -> tuple[str, str]:
    splitter = Splitter(inside)
    found = [splitter.feed(part) for part in parts]
    found.append(splitter.end())
    return "".join(thought for thought, _ in found), "".join(text for _, text in found)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>Why?</think>Because.", "Why?", "Because."),
        ("\n <think>\nWhy?\n</think>\n\nBecause.", "Why?\n", "Because."),
        ("<think>\n\n</think>\n\nBecause.", "", "Because."),
        ("<think></think>", "", ""),
        ("<think>Why", "Why", ""),
        ("<think>Why</thi", "Why</thi", ""),
        ("Because.", "", "Because."),
        (" Because.", "", " Because."),
        ("<thin", "", "<thin"),
        ("<thinking>no</thinking>", "", "<thinking>no</thinking>"),
        ("So <think>is a tag</think>.", "", "So <think>is a tag</think>."),
        ("<think>a</think>b <think>c</think> d", "a", "b <think>c</think> d"),
        ("<think>a <think> b</think>c</think>", "a <think> b", "c</think>"),
        (" " * (LEAD_CHARS + 1) + "<think>a</think>", "", " " * (LEAD_CHARS + 1) + "<think>a</think>"),
        ("", "", ""),
    ],
)
def test_only_a_tag_at_the_beginning_opens(text: str, thought: str, answer: str) -> None:
    assert split(text) == (thought, answer)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("Why?\n</think>\n\nBecause.", "Why?\n", "Because."),
        ("\nWhy?</think>Because </think> of it.", "Why?", "Because </think> of it."),
        ("<think>Why?</think>Because.", "Why?", "Because."),
        ("</think>Because.", "", "Because."),
        ("Why", "Why", ""),
    ],
)
def test_an_opening_tag_in_the_prompt_needs_none_in_the_text(text: str, thought: str, answer: str) -> None:
    assert split(text, inside=True) == (thought, answer)


@given(pieces, st.booleans(), st.data())
def test_cuts_do_not_matter(parts: list[str], inside: bool, draw: st.DataObject) -> None:
    text = "".join(parts)
    whole = split(text, inside=inside)
    assert split(*text, inside=inside) == whole
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    assert split(*[text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)], inside=inside) == whole


@given(pieces, st.booleans())
def test_nothing_is_lost_but_the_tags_and_the_space_after_them(parts: list[str], inside: bool) -> None:
    text = "".join(parts)
    splitter = Splitter(inside)
    thought, answer = map("".join, zip(*[*map(splitter.feed, parts), splitter.end()], strict=True))
    again = ("<think>" if splitter.tagged else "") + thought + ("</think>" if splitter.closed else "") + answer
    assert "".join(again.split()) == "".join(text.split())
    assert text.endswith(answer)


@given(pieces, st.booleans())
def test_at_most_the_beginning_of_a_tag_waits(parts: list[str], inside: bool) -> None:
    splitter = Splitter(inside)
    for part in parts:
        splitter.feed(part)
        assert len(splitter.held.lstrip()) <= 7
        assert len(splitter.held) <= LEAD_CHARS + 7


def test_what_may_begin_a_tag() -> None:
    assert [beginning(text, "</think>") for text in ("", "a", "a<", "a</thin", "a</think>", "<a", "</</")] == [0, 0, 1, 6, 0, 0, 2]


def test_a_closing_tag_that_is_spoken_of_is_not_alone_on_its_line() -> None:
    for text, expected in (("so\n</think>\n\nx", True), ("</think>", True), ("a `</think>` b", False), ("\n</think> b", False)):
        assert alone(text, text.index("</think>")) is expected


@pytest.mark.parametrize(
    ("model", "thinks", "expected"),
    [
        ("deepseek-ai/DeepSeek-R1-0528", None, True),
        ("DeepSeek-R1-Distill-Qwen-7B", None, True),
        ("Qwen/QwQ-32B", True, True),
        ("Qwen3-30B-A3B-Thinking-2507", None, True),
        ("deepseek-ai/DeepSeek-V3.1", None, False),
        ("deepseek-ai/DeepSeek-V3.1", True, True),
        ("deepseek-v4-pro", True, True),
        ("deepseek-v3", True, False),
        ("deepseek-r1", False, False),
        ("llama-3.1-8b", None, False),
    ],
)
def test_models_whose_prompts_have_the_opening_tag(model: str, thinks: bool | None, expected: bool) -> None:
    assert begins_inside(model, thinks) is expected
