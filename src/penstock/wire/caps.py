"""Bounds on what a call may ask for, checked before it is queued: each breach names the field, the bound and the fix."""

from __future__ import annotations

import re
from typing import Annotated, NoReturn, TypeVar

import msgspec
from msgspec import Meta, Raw

from penstock.config import Limits
from penstock.errors import CallError
from penstock.wire.depth import few, seen
from penstock.wire.fields import ABSENT, EXPECTED, Chat, Completion

Decoded = TypeVar("Decoded")

STOPS = 16
"""Stop sequences; OpenAI allows 4, DeepSeek 16."""
STOP_BYTES = 8_192
"""All stop sequences of a call, as JSON."""
TOOLS_BYTES = 524_288
"""Tools, or functions, as JSON: some 130,000 tokens of prompt."""
BIAS_BYTES = 65_536
BIASES = 1_024
FEW = 64
MESSAGE_BYTES = 8
"""Fewer than any message object takes: `{"a":1},`."""

_STOPS = msgspec.json.Decoder(str | list[str] | None)
_BIASES = msgspec.json.Decoder(dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None)
_ELEMENTS = msgspec.json.Decoder(list[Raw])
_OPENING = re.compile(rb'"|\[\s*(?:\{|["\[0-9])').match


def wrong(field: str) -> CallError:
    """The error for a field of the wrong type or form."""
    return CallError(400, "invalid_value", f"'{field}' must be {EXPECTED[field]}.", field=field)


def check(fields: Chat | Completion, limits: Limits) -> None:
    """Caps of chat and completions. Raises CallError."""
    asked = fields.max_completion_tokens or fields.max_tokens
    if asked is not None and asked > limits.max_tokens:
        name = "max_completion_tokens" if fields.max_completion_tokens else "max_tokens"
        _above(name, limits.max_tokens)
    if fields.n is not None and fields.n > limits.n:
        _above("n", limits.n)
    if fields.best_of is not None and fields.best_of > limits.n:
        _above("best_of", limits.n)
    if fields.stop is not ABSENT:
        _stops(fields.stop)
    if fields.logit_bias is not ABSENT:
        _biases(fields.logit_bias)
    if fields.tools is not ABSENT:
        _tools("tools", fields.tools)
    if fields.functions is not ABSENT:
        _tools("functions", fields.functions)


def check_prompt(name: str, text: bytes, limits: Limits) -> None:
    """The shape of messages, prompt or input, from its raw JSON. Raises CallError."""
    if name != "messages" or not text.startswith(b"[{"):
        opening = _OPENING(text)
        if opening is None or (opening[0] == b"[{") != (name == "messages"):
            raise wrong(name)
    most = limits.messages
    if name != "messages" or len(text) <= most * MESSAGE_BYTES:
        return
    # Most long prompts are a few long messages, and then a few searches tell.
    if few(text, b"{", min(most, FEW)) > min(most, FEW) and seen(text, b"{", most + 1) > most:
        _messages(text, most)


def _messages(text: bytes, most: int) -> None:
    if len(_ELEMENTS.decode(text)) > most:
        raise CallError(400, "array_above_max_length", f"'messages' may hold at most {most}; shorten the conversation.", field="messages")


def _above(field: str, most: int) -> NoReturn:
    raise CallError(400, "integer_above_max_value", f"'{field}' may be at most {most}; lower it.", field=field)


def _stops(raw: Raw) -> None:
    if len(raw) > STOP_BYTES:
        raise CallError(400, "string_above_max_length", f"'stop' may take at most {STOP_BYTES} bytes; shorten it.", field="stop")
    stops = _decoded("stop", _STOPS, raw)
    if isinstance(stops, list) and len(stops) > STOPS:
        raise CallError(400, "array_above_max_length", f"'stop' may hold at most {STOPS} sequences; send fewer.", field="stop")


def _biases(raw: Raw) -> None:
    if len(raw) > BIAS_BYTES or len(_decoded("logit_bias", _BIASES, raw) or ()) > BIASES:
        message = f"'logit_bias' may hold at most {BIASES} tokens in {BIAS_BYTES} bytes; send fewer."
        raise CallError(400, "object_above_max_length", message, field="logit_bias")


def _tools(field: str, raw: Raw) -> None:
    if len(raw) > TOOLS_BYTES:
        message = f"'{field}' may take at most {TOOLS_BYTES} bytes; send fewer or shorter ones."
        raise CallError(400, "array_above_max_length", message, field=field)
    if memoryview(raw)[0] not in b"[n":
        raise wrong(field)


def _decoded(field: str, decoder: msgspec.json.Decoder[Decoded], raw: Raw) -> Decoded:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        raise wrong(field) from None
