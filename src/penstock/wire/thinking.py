"""Whether a model is to think before it answers: how callers ask for it, and how each kind of engine is told.

| caller's field | on | off |
|---|---|---|
| `thinking` (DeepSeek) | `{"type": "enabled"}` | `{"type": "disabled"}` |
| `enable_thinking` (Qwen) | `true` | `false` |
| `chat_template_kwargs` (vLLM, SGLang) | `thinking` or `enable_thinking` true | false |
| `reasoning_effort` (OpenAI) | any but `none` | `none` |

The first that says something counts. What says neither goes on as it came: the engine judges it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Raw

from penstock.config import Engine
from penstock.wire.fields import ABSENT

IMPLIED = {"deepseek-chat": False, "deepseek-reasoner": True}
"""DeepSeek's names for one model that thinks or does not: said by those who call an alias so."""

EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""Efforts -> those that every engine knows."""

TEMPLATE, EFFORT, TYPE = "chat_template_kwargs", "reasoning_effort", "thinking"
WAYS = {
    # Templates of DeepSeek's models read `thinking`, those of Qwen's, GLM's and others `enable_thinking`; neither minds the other's.
    Engine.VLLM: TEMPLATE,
    Engine.SGLANG: TEMPLATE,
    Engine.TENSORRT_LLM: TEMPLATE,
    Engine.LLAMA_CPP: TEMPLATE,
    # Of its OpenAI API; `think` is read by its own alone.
    Engine.OLLAMA: EFFORT,
    Engine.DEEPSEEK: TYPE,
}
"""Engine -> the field that it is told with. The others are told in the caller's words: what they understand is not known."""


class Telling(Protocol):
    """The fields that tell, as raw JSON."""

    thinking: Raw
    enable_thinking: Raw
    chat_template_kwargs: Raw
    reasoning_effort: Raw


_NAMES = ("thinking", "enable_thinking")
_TEXT = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_FLAGS = {b"true": True, b"false": False}
_ASKING = dict.fromkeys(EFFORTS, True) | {"none": False}
_TYPES = {b'"enabled"': True, b'"disabled"': False}


def asked(fields: Telling, alias: str = "") -> bool | None:
    """Whether a call asks for thoughts (True), for none (False), or says nothing. `alias` is the model's name where it was one."""
    found = _TYPES.get(bytes(_object(fields.thinking).get("type", b"")))
    if found is None:
        found = _FLAGS.get(bytes(fields.enable_thinking))
    if found is None and fields.chat_template_kwargs is not ABSENT:
        found = _of_template(_object(fields.chat_template_kwargs))
    if found is None:
        found = _ASKING.get(_string(fields.reasoning_effort))
    return IMPLIED.get(alias) if found is None else found


def spoken(body: bytes, engine: Engine, thinks: bool) -> bytes:
    """A body that was read, asking for thoughts or none as the engine understands it; the same object where it does already."""
    way = WAYS.get(engine)
    if way is None:
        return body
    fields = _OBJECT.decode(body)
    told = _TOLD[way](fields, thinks)
    if told == fields:
        return body
    return msgspec.json.encode(told)


def _template(fields: dict[str, Raw], thinks: bool) -> dict[str, Raw]:
    given = _object(fields.get(TEMPLATE, ABSENT))
    told = _without(fields)
    if _of_template(given) is None:
        flag = Raw(b"true" if thinks else b"false")
        told[TEMPLATE] = Raw(msgspec.json.encode(given | dict.fromkeys(_NAMES, flag)))
    effort = _string(fields.get(EFFORT, ABSENT))
    if effort == "none":
        # Not an effort that their older versions take.
        del told[EFFORT]
    elif effort in EFFORTS and EFFORTS[effort] != effort:
        told[EFFORT] = Raw(msgspec.json.encode(EFFORTS[effort]))
    return told


def _effort(fields: dict[str, Raw], thinks: bool) -> dict[str, Raw]:
    told = _without(fields)
    told.pop(TEMPLATE, None)
    effort = EFFORTS.get(_string(fields.get(EFFORT, ABSENT)), "medium") if thinks else "none"
    if _string(fields.get(EFFORT, ABSENT)) != effort:
        told[EFFORT] = Raw(msgspec.json.encode(effort))
    return told


def _type(fields: dict[str, Raw], thinks: bool) -> dict[str, Raw]:
    told = {name: raw for name, raw in fields.items() if name not in ("enable_thinking", TEMPLATE)}
    if _TYPES.get(bytes(_object(fields.get(TYPE, ABSENT)).get("type", b""))) is None:
        told[TYPE] = Raw(b'{"type":"enabled"}' if thinks else b'{"type":"disabled"}')
    if not thinks or _string(fields.get(EFFORT, ABSENT)) == "none":
        told.pop(EFFORT, None)
    return told


_TOLD = {TEMPLATE: _template, EFFORT: _effort, TYPE: _type}


def _without(fields: dict[str, Raw]) -> dict[str, Raw]:
    return {name: raw for name, raw in fields.items() if name not in _NAMES}


def _of_template(given: dict[str, Raw]) -> bool | None:
    found = [flag for name in _NAMES if (flag := _FLAGS.get(bytes(given.get(name, b"")))) is not None]
    return found[0] if found else None


def _object(raw: Raw) -> dict[str, Raw]:
    """A JSON object's fields; none for anything else."""
    if not bytes(raw).startswith(b"{"):
        return {}
    try:
        return _OBJECT.decode(raw)
    except (msgspec.MsgspecError, UnicodeError):
        return {}


def _string(raw: Raw) -> str:
    try:
        return _TEXT.decode(raw)
    except (msgspec.MsgspecError, UnicodeError):
        return ""
