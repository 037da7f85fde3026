"""How an engine is asked for the rest of an answer that another one began.

The assistant's message, as far as its caller has it, goes last, and the engine is told to go on with it; a completion's text goes
behind its prompt. Token ids are not kept: vLLM tells them (`return_token_ids`) in an array inside each event, which would have to be cut
out of each event again. So the text is what is gone on with, and the new engine makes its own tokens of it.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from penstock.config import Engine
from penstock.facts import Form, Route

EMBEDDED = "penstock-engine"
"""What the embedded engine names as the owner of its models."""


class Way(msgspec.Struct, frozen=True):
    """What an engine can go on with, and how it is told."""

    forms: tuple[Form, ...] = ()
    flags: bool = False
    """It has to be told that the last message is not complete."""
    trims: bool = False
    """Its template may take white space from the end of a message."""
    completion_tokens: int = 0
    """Length of a completion whose call gives none; 0: as long as it gets."""


NOWAY = Way()
_VLLM = Way((Form.CHAT, Form.COMPLETION), flags=True, trims=True, completion_tokens=16)
WAYS: dict[str, Way] = {
    # vLLM's templates are the models', and those of thinking models leave thoughts out: what was thought cannot be gone on with.
    Engine.VLLM: _VLLM,
    "vllm": _VLLM,
    Engine.SGLANG: Way((Form.CHAT, Form.COMPLETION), flags=True, completion_tokens=16),
    # An assistant's message at the end is gone on with unasked.
    Engine.LLAMA_CPP: Way((Form.CHAT, Form.COMPLETION)),
    "llamacpp": Way((Form.CHAT, Form.COMPLETION)),
    EMBEDDED: Way((Form.CHAT, Form.THOUGHTS, Form.COMPLETION), flags=True, trims=True, completion_tokens=16),
}
"""By the kind of engine that is configured, or by whom its list of models names as their owner. Others are not known to."""

HARMLESS = frozenset(
    "model messages prompt stream stream_options max_tokens max_completion_tokens min_tokens temperature top_p top_k min_p typical_p seed "
    "stop stop_token_ids include_stop_str_in_output ignore_eos n best_of user metadata store frequency_penalty presence_penalty "
    "repetition_penalty logit_bias skip_special_tokens spaces_between_special_tokens chat_template_kwargs thinking reasoning_effort "
    "enable_thinking priority cache_salt safety_identifier prompt_cache_key service_tier cache_prompt tool_choice "
    "parallel_tool_calls".split()
)
"""Fields with which the rest of an answer follows from its text. With any other, structured output among them, it may not."""
_NOTHING = frozenset((b"null", b"false", b"[]", b"{}"))
_TEXT = frozenset((b'{"type":"text"}', b'{"type": "text"}'))
_LIMITS = ("max_tokens", "max_completion_tokens")


class _Message(msgspec.Struct):
    role: str = ""


class _Options(msgspec.Struct):
    continuous_usage_stats: bool | None = None


_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_number = msgspec.json.Decoder(int | None)
_message = msgspec.json.Decoder(_Message)
_options = msgspec.json.Decoder(_Options | None)
_stops = msgspec.json.Decoder(str | list[str] | None)


def way(engine: str, owner: str = "") -> Way:
    """Of a node that is configured as `engine`, or, where that is `auto`, whose models are `owner`'s."""
    return WAYS.get(owner if engine == Engine.AUTO else engine, NOWAY)


class Rest:
    """A call of which the caller has the beginning of the answer. Raises ValueError where the rest cannot be exact."""

    __slots__ = ("_chat", "_fields", "_stops", "content", "most", "thoughts", "tokens")

    def __init__(self, route: str, body: bytes, texts: tuple[str, str] | None, tokens: int) -> None:
        if texts is None:
            raise ValueError("more than text was sent")
        self.thoughts, self.content = texts
        self.tokens = tokens
        self._chat = route == Route.CHAT
        try:
            self._fields = fields = _OBJECT.decode(body)
            for name, value in fields.items():
                if name not in HARMLESS and bytes(value) not in _NOTHING and not (name == "response_format" and bytes(value) in _TEXT):
                    raise ValueError(f"{name} is set")
            self._check()
            stops = _stops.decode(fields.get("stop", Raw(b"null")))
            self.most = min((most for name in _LIMITS if (most := self._number(name))), default=0)
            """The caller's limit; 0 for none."""
        except msgspec.MsgspecError as problem:
            raise ValueError(str(problem)) from None
        self._stops = [stops] if isinstance(stops, str) else stops or []

    @property
    def form(self) -> Form:
        if not self._chat:
            return Form.COMPLETION
        return Form.THOUGHTS if self.thoughts else Form.CHAT

    def cut(self, way: Way) -> int:
        """How many characters of the text are to come from the engine again: white space that it might not see, and what may be
        the beginning of a stop sequence, which it looks for in its own text alone.
        """
        text = self.content or self.thoughts
        again = len(text) - len(text.rstrip()) if way.trims and self._chat else 0
        for stop in self._stops:
            again = max(again, max((size for size in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:size])), default=0))
        return again

    def kept(self, way: Way) -> int:
        """Tokens that the engine is given. What is to come again is taken for one."""
        return self.tokens - 1 if self.cut(way) else self.tokens

    def left(self, way: Way) -> int:
        """Tokens that may still come; -1 for no limit."""
        most = self.most or (0 if self._chat else way.completion_tokens)
        return max(0, most - self.kept(way)) if most else -1

    def body(self, way: Way) -> bytes:
        """What to ask the engine."""
        fields, again, kept = dict(self._fields), self.cut(way), self.kept(way)
        for name in _LIMITS:
            if most := self._number(name):
                fields[name] = _raw(max(1, most - kept))
        if not self.most and (left := self.left(way)) >= 0:
            fields["max_tokens"] = _raw(max(1, left))
        if least := self._number("min_tokens"):
            fields["min_tokens"] = _raw(max(0, least - kept))
        thoughts, content = self.thoughts, self.content
        if content:
            content = content[: len(content) - again]
        else:
            thoughts = thoughts[: len(thoughts) - again]
        if not thoughts and not content:
            return msgspec.json.encode(fields)
        if self._chat:
            message = {"role": "assistant", "content": content} | ({"reasoning_content": thoughts} if thoughts else {})
            fields["messages"] = Raw(bytes(fields["messages"]).rstrip()[:-1] + b"," + msgspec.json.encode(message) + b"]")
            if way.flags:
                fields["add_generation_prompt"], fields["continue_final_message"] = Raw(b"false"), Raw(b"true")
        else:
            fields["prompt"] = Raw(_prompt(bytes(fields["prompt"]))[:-1] + msgspec.json.encode(content)[1:])
        return msgspec.json.encode(fields)

    def _number(self, name: str) -> int | None:
        raw = self._fields.get(name)
        return None if raw is None else _number.decode(raw)

    def _check(self) -> None:
        if any((self._number(name) or 1) != 1 for name in ("n", "best_of")):
            raise ValueError("several choices are asked for")
        options = _options.decode(self._fields.get("stream_options", Raw(b"null")))
        if options is not None and options.continuous_usage_stats:
            raise ValueError("each event has a usage of its own")
        if self._chat:
            messages = _LIST.decode(self._fields["messages"])
            if _message.decode(messages[-1]).role == "assistant":
                raise ValueError("the last message is the assistant's")
        else:
            _prompt(bytes(self._fields["prompt"]))


def _prompt(raw: bytes) -> bytes:
    """The one prompt, as a JSON string. Raises ValueError for tokens and for several."""
    if raw[:1] == b"[":
        items = _LIST.decode(raw)
        raw = bytes(items[0]) if len(items) == 1 else b""
    if raw[:1] != b'"':
        raise ValueError("the prompt is not one text")
    return raw


def _raw(value: int) -> Raw:
    return Raw(b"%d" % value)
