"""A call as the embedded engine understands it: OpenAI's fields and the few of vLLM's that say how long an answer is.

Law: pure. Raises CallError where vLLM answers 400.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec
from msgspec import Raw

from penstock.engine import begun, text
from penstock.errors import CallError
from penstock.wire import prompt as prompts
from penstock.wire import thinking

COMPLETION_TOKENS = 16
"""Length of a completion when the call gives none (OpenAI, vLLM)."""
MAX_CHOICES = 128
DIMENSIONS = 256
MAX_DIMENSIONS = 4_096
_ABSENT = Raw()


class Usage(msgspec.Struct):
    include_usage: bool | None = None


class Body(msgspec.Struct):
    """The fields that matter here; all others are passed over."""

    model: str
    messages: Raw = _ABSENT
    prompt: Raw = _ABSENT
    input: Raw = _ABSENT
    tools: Raw = _ABSENT
    stream: bool | None = None
    stream_options: Usage | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    thinking: Raw = _ABSENT
    enable_thinking: Raw = _ABSENT
    chat_template_kwargs: Raw = _ABSENT
    reasoning_effort: Raw = _ABSENT
    dimensions: int | None = None
    encoding_format: str | None = None
    continue_final_message: bool | None = None


class Part(msgspec.Struct, frozen=True):
    """One choice of the answer, which the engine sees as one sequence."""

    seed: int
    prompt_tokens: int
    """With what another engine wrote of the answer."""
    output_tokens: int
    reasoning_tokens: int
    """Those of the output tokens that come first and are thoughts."""
    stopped: bool
    """The answer came to its own end before the caller's limit."""
    blocks: tuple[int, ...]
    begun: int = 0
    """Tokens of the answer that were written elsewhere."""
    rest: bytes = b""
    """What is left of the first token, where a part of it was written elsewhere."""


class Call(msgspec.Struct, frozen=True):
    model: str
    stream: bool
    usage_asked: bool
    prompt_tokens: int
    """Of all prompts together, each counted once."""
    parts: tuple[Part, ...]


class EmbeddingCall(msgspec.Struct, frozen=True):
    model: str
    texts: tuple[bytes, ...]
    prompt_tokens: int
    dimensions: int
    base64: bool


_decode = msgspec.json.Decoder(Body).decode
_list = msgspec.json.Decoder(list[Raw]).decode


def read(chat: bool, body: bytes, models: tuple[str, ...], context_tokens: int) -> Call:
    """A call to chat (or else completions). `context_tokens` bounds prompt and output together."""
    asked = _body(body, models)
    raw = bytes(asked.messages if chat else asked.prompt)
    each = [raw] if chat else _prompts(raw)
    if not raw or (chat and (raw[0] != 0x5B or not _list(raw))):
        raise CallError(400, "invalid_request", f"{'messages' if chat else 'prompt'}: a non-empty value is required")
    thinks = chat and _thinks(asked)
    starts = [_begun(asked, chat, one) if len(each) == 1 else begun.Begun(one) for one in each]
    sizes = [prompts.tokens(start.prompt, len(bytes(asked.tools))) + start.tokens for start in starts]
    tools = asked.tools if bytes(asked.tools) else None
    parts: list[Part] = []
    for start, size in zip(starts, sizes, strict=True):
        blocks = prompts.blocks(start.prompt, asked.model, tools, 0)
        for _ in range(asked.n or 1):
            seed = text.seed(start.prompt, len(parts))
            thoughts = text.reasoning_tokens(seed) if thinks else 0
            length, stopped = _length(asked, chat, text.natural_tokens(seed) + thoughts - start.tokens, size, context_tokens)
            thoughts = min(length, max(0, thoughts - start.tokens))
            parts.append(Part(seed, size, length, thoughts, stopped, blocks, start.tokens, start.rest))
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return Call(asked.model, bool(asked.stream), usage, sum(sizes), tuple(parts))


def read_embedding(body: bytes, models: tuple[str, ...]) -> EmbeddingCall:
    asked = _body(body, models)
    raw = bytes(asked.input)
    if not raw:
        raise CallError(400, "invalid_request", "input: a non-empty value is required")
    dimensions = DIMENSIONS if asked.dimensions is None else asked.dimensions
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise CallError(400, "invalid_request", f"dimensions must be from 1 to {MAX_DIMENSIONS}")
    texts = _prompts(raw)
    tokens = sum(prompts.tokens(one, 0) for one in texts)
    return EmbeddingCall(asked.model, tuple(texts), tokens, dimensions, asked.encoding_format == "base64")


def _body(body: bytes, models: tuple[str, ...]) -> Body:
    try:
        asked = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise CallError(400, "invalid_request", str(problem)) from None
    if asked.model not in models:
        raise CallError(404, "model_not_found", f"The model `{asked.model}` does not exist.", field="model")
    if not 1 <= (1 if asked.n is None else asked.n) <= MAX_CHOICES:
        raise CallError(400, "invalid_request", f"n must be from 1 to {MAX_CHOICES}", field="n")
    return asked


def _prompts(raw: bytes) -> list[bytes]:
    """A prompt is a string or a list of tokens; a list of either is several."""
    if raw[:1] != b"[":
        return [raw]
    items = [bytes(item) for item in _list(raw)]
    if not items:
        raise CallError(400, "invalid_request", "an empty list is no prompt")
    return items if items[0][:1] in (b'"', b"[") else [raw]


def _thinks(asked: Body) -> bool:
    """As asked for in any of the known ways; unasked, by the model's name."""
    said = thinking.asked(asked)
    return fnmatchcase(asked.model.lower(), "*r1*") if said is None else said


def _begun(asked: Body, chat: bool, prompt: bytes) -> begun.Begun:
    """The prompt, and what of the answer stands behind it already."""
    if (asked.n or 1) > 1:
        return begun.Begun(prompt)
    if not chat:
        return begun.of_completion(prompt)
    return (begun.of_chat(prompt) if asked.continue_final_message else None) or begun.Begun(prompt)


def _length(asked: Body, chat: bool, natural: int, prompt_tokens: int, context_tokens: int) -> tuple[int, bool]:
    """Output tokens, and whether the answer ended by itself. `natural` is how long it would be if nothing limited it."""
    room = context_tokens - prompt_tokens
    given = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    if given is not None and given < 1:
        raise CallError(400, "invalid_request", f"max_tokens must be at least 1, got {given}.", field="max_tokens")
    limit = given if given is not None else room if chat else COMPLETION_TOKENS
    if room < 1 or limit > room:
        total = f"{prompt_tokens} in the prompt and {max(limit, 1)} in the completion"
        raise CallError(
            400, "context_length_exceeded", f"This model's maximum context length is {context_tokens} tokens, but {total} were asked."
        )
    least = asked.min_tokens or 0
    if least > limit:
        raise CallError(400, "invalid_request", f"min_tokens must be at most max_tokens={limit}, got {least}.", field="min_tokens")
    if asked.ignore_eos and given is not None:
        return limit, False
    length = max(natural, least, 0)
    return (length, True) if length <= limit else (limit, False)
