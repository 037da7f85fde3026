from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import text


def test_the_same_prompt_always_gives_the_same_words() -> None:
    voice = text.Voice(text.seed(b"a prompt", 0))
    assert voice.words(0, 6) == b" down wait every held small turns"
    assert text.natural_tokens(text.seed(b"a prompt", 0)) == 538
    assert voice.words(0, 5) != text.Voice(text.seed(b"a prompt", 1)).words(0, 5)


@given(st.binary(), st.integers(0, 1_000), st.integers(0, 1_000))
def test_words_join_to_the_same_text_however_they_are_cut(prompt: bytes, first: int, more: int) -> None:
    voice = text.Voice(text.seed(prompt, 0))
    assert voice.words(0, first) + voice.words(first, first + more) == voice.words(0, first + more)
    assert b"".join(voice.word(index) for index in range(first)) == voice.words(0, first)


def test_words_need_no_escape_and_their_number_is_prime() -> None:
    assert all(json.dumps(word.decode()) == f'"{word.decode()}"' for word in text.WORDS)
    assert all(len(text.WORDS) % divisor for divisor in range(2, len(text.WORDS)))


def test_natural_lengths_have_the_mean_they_should() -> None:
    lengths = [text.natural_tokens(text.seed(b"%d" % index, 0)) for index in range(4_000)]
    assert sum(lengths) / len(lengths) == pytest.approx(text.MEAN_TOKENS, rel=0.1)
    assert min(lengths) == text.SHORTEST_TOKENS
    assert max(lengths) <= text.LONGEST_TOKENS
    assert text.reasoning_tokens(1 << 16) == text.natural_tokens(1)


def test_embeddings_have_length_one_and_differ() -> None:
    one, other = text.embedding(b"a", 64), text.embedding(b"b", 64)
    assert sum(part * part for part in one) == pytest.approx(1.0)
    assert abs(sum(a * b for a, b in zip(one, other, strict=True))) < 0.5
    assert text.float32([1.0, -2.0]) == b"\x00\x00\x80?\x00\x00\x00\xc0"
