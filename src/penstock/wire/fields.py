"""The fields of a call that matter here, typed; all others are skipped, though the text must still be valid JSON.

A key that appears twice counts as its last value, as it does for the engines (Python's json, orjson, nlohmann's json), so
that both sides see one call. A null is a field left out.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

Refused = Annotated[str, Meta(max_length=0, pattern="x")]
"""No value satisfies it."""
Positive = Annotated[int, Meta(ge=1)]
Alternatives = Annotated[int, Meta(ge=0, le=20)]
ABSENT = Raw()


class StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class Fields(Struct, gc=False, kw_only=True):
    """What every route shares. `prompt` is the raw JSON of messages, prompt or input."""

    PROMPT: ClassVar[str]
    """The caller's name for `prompt`."""
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    prompt: Raw
    api_base: Refused = ""
    base_url: Refused = ""
    api_key: Refused = ""
    extra_headers: Refused = ""
    organization: Refused = ""


class Generation(Fields, gc=False, kw_only=True):
    """What chat and completions share, in the order in which clients usually send it."""

    frequency_penalty: float | None = None
    logit_bias: Raw = ABSENT
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    metadata: Raw = ABSENT
    n: Positive | None = None
    presence_penalty: float | None = None
    prompt_cache_key: str | None = None
    stop: Raw = ABSENT
    stream: bool | None = None
    stream_options: StreamOptions | UnsetType | None = UNSET
    temperature: float | None = None
    top_p: float | None = None


class Chat(Generation, gc=False, kw_only=True):
    PROMPT: ClassVar[str] = "messages"
    best_of: ClassVar[None] = None
    prompt: Raw = field(name="messages")
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    tools: Raw = ABSENT
    functions: Raw = ABSENT
    response_format: Raw = ABSENT
    thinking: Raw = ABSENT
    enable_thinking: Raw = ABSENT
    chat_template_kwargs: Raw = ABSENT
    reasoning_effort: Raw = ABSENT


class Completion(Generation, gc=False, kw_only=True):
    PROMPT: ClassVar[str] = "prompt"
    max_completion_tokens: ClassVar[None] = None
    tools: ClassVar[Raw] = ABSENT
    functions: ClassVar[Raw] = ABSENT
    best_of: Positive | None = None
    logprobs: Alternatives | None = None


class Embedding(Fields, gc=False, kw_only=True):
    PROMPT: ClassVar[str] = "input"
    prompt: Raw = field(name="input")
    metadata: Raw = ABSENT


class Code(Struct, gc=False):
    code: str | None = None


class Error(Struct, gc=False):
    """An error body of ours."""

    error: Code


EXPECTED = {
    "model": "a string of 1 to 256 characters that names a model",
    "messages": "a list of message objects with at least one",
    "prompt": "a string, or a list of strings or tokens with at least one",
    "input": "a string, or a list of strings or tokens with at least one",
    "stream": "true or false",
    "stream_options": 'an object such as {"include_usage": true}',
    "n": "an integer of at least 1",
    "best_of": "an integer of at least 1",
    "max_tokens": "an integer of at least 1",
    "max_completion_tokens": "an integer of at least 1",
    "temperature": "a finite number",
    "top_p": "a finite number",
    "frequency_penalty": "a finite number",
    "presence_penalty": "a finite number",
    "logprobs": "true or false for chat, an integer from 0 to 20 for completions",
    "top_logprobs": "an integer from 0 to 20",
    "metadata": "an object of strings",
    "prompt_cache_key": "a string",
    "stop": "a string or a list of strings",
    "logit_bias": "an object from token ids to numbers from -100 to 100",
    "tools": "a list of tool objects",
    "functions": "a list of function objects",
}
"""Field -> what it must be, for an error's text."""
