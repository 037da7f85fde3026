"""Answers that another engine began: where they broke off, so that the rest is what would have followed.

A chat is gone on with when its last message is the assistant's and `continue_final_message` is set (vLLM); its thoughts stand in
`reasoning_content`. A completion goes on when its prompt ends with what this engine says to the rest of the prompt, as with any
model that writes on. Where it broke off inside a word, the rest of that word comes first.

Law: pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw
from xxhash import xxh3_64

from penstock.engine.text import LONGEST_TOKENS, WORDS, Voice, seed

MOST_WORDS = 2 * LONGEST_TOKENS
"""Longest answer."""
_KNOWN = frozenset(WORDS)
_list = msgspec.json.Decoder(list[Raw]).decode


class Message(msgspec.Struct):
    role: str
    content: str | None = None
    reasoning_content: str | None = None


class Begun(msgspec.Struct, frozen=True):
    """`prompt` is the raw JSON of what was asked at first."""

    prompt: bytes
    tokens: int = 0
    """Those that are written to their last letter."""
    rest: bytes = b""
    """Of the token after them, what is not written yet."""


_message = msgspec.json.Decoder(Message).decode


def of_chat(messages: bytes) -> Begun | None:
    """The last message, where it is the assistant's."""
    last = bytes(_list(messages)[-1])
    try:
        message = _message(last)
    except msgspec.ValidationError:
        return None
    if message.role != "assistant":
        return None
    before = messages[: messages.rindex(last)].rstrip().removesuffix(b",")
    prompt = before + b"]"
    voice = Voice(seed(prompt, 0))
    texts = ((message.reasoning_content or "").encode(), (message.content or "").encode())
    return _placed(prompt, voice, texts)


def _placed(prompt: bytes, voice: Voice, texts: Sequence[bytes]) -> Begun:
    """Words begin with a space, so spaces count them; only the last can be incomplete."""
    tokens = sum(text.count(b" ") for text in texts)
    last = next((text for text in reversed(texts) if text), b"")
    if not tokens or b" " not in last:
        return Begun(prompt, tokens)
    word, written = voice.word(tokens - 1), last[last.rindex(b" ") :]
    if written != word and word.startswith(written):
        return Begun(prompt, tokens - 1, word[len(written) :])
    return Begun(prompt, tokens)


def of_completion(prompt: bytes) -> Begun:
    """The shortest beginning of the prompt after which this engine would have said all that follows."""
    words = prompt[:-1].split(b" ")
    if prompt[:1] != b'"' or len(words) < 2:
        return Begun(prompt)
    # The last one may be incomplete.
    first = len(words) - 1
    while first > 1 and b" " + words[first - 1] in _KNOWN and len(words) - first < MOST_WORDS:
        first -= 1
    before = xxh3_64(b" ".join(words[:first]), seed=0)
    for at in range(first, len(words)):
        whole = before.copy()
        whole.update(b'"')
        voice = Voice(whole.intdigest())
        if voice.word(0).startswith(b" " + words[at]):
            said = b"".join([b" " + word for word in words[at:]])
            if voice.words(0, len(words) - at).startswith(said):
                return _placed(prompt[: len(prompt) - 1 - len(said)] + b'"', voice, (said,))
        before.update(b" " + words[at])
    return Begun(prompt)
