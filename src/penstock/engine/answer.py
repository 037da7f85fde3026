"""An answer in the making: the bytes of OpenAI's chunks and objects, written as the model emits tokens.

An answer has one or more choices, each a sequence of the engine. Streamed tokens go out one event a token; a caller that
does not read gets what it missed when it reads again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from penstock.engine.call import Call, Part
from penstock.engine.text import Voice

JSON = b"content-type: application/json\r\n"
_EVENTS = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_DONE = b"data: [DONE]\n\n"


class Caller(Protocol):
    """What an answer needs of an HTTP exchange."""

    @property
    def paused(self) -> bool: ...

    def respond(self, status: int, headers: bytes, body: bytes) -> None: ...
    def start(self, status: int, headers: bytes) -> None: ...
    def send(self, data: bytes) -> None: ...
    def end(self, data: bytes = b"") -> None: ...
    def abort(self) -> None: ...


class Choice:
    """One sequence's text."""

    __slots__ = ("_content", "_tail", "_thought", "_voice", "answer", "ended", "head", "index", "out", "part", "sent")

    def __init__(self, answer: Answer, index: int, part: Part) -> None:
        self.answer, self.index, self.part = answer, index, part
        self._voice = Voice(part.seed)
        self.out = 0
        """Tokens that the engine has emitted."""
        self.sent = 0
        """Those of them that are written."""
        self.ended = False
        self.head = head = b'%b"choices":[{"index":%d,' % (answer.head, index)
        if answer.chat:
            self._thought, self._content = head + b'"delta":{"reasoning_content":"', head + b'"delta":{"content":"'
            self._tail = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
        else:
            self._thought = self._content = head + b'"text":"'
            self._tail = b'","logprobs":null,"finish_reason":null}]}\n\n'

    @property
    def reason(self) -> bytes:
        return b"stop" if self.part.stopped else b"length"

    def events(self, until: int) -> bytes:
        """The tokens not yet written, up to `until`, an event each."""
        first, self.sent = self.sent, until
        if not self.part.output_tokens:
            return b""
        if until - first == 1:
            before = self._content if first >= self.part.reasoning_tokens else self._thought
            return b"%b%b%b" % (before, self._word(first), self._tail)
        thoughts, content, thought, tail = self.part.reasoning_tokens, self._content, self._thought, self._tail
        word = self._word
        return b"".join([b"%b%b%b" % (content if at >= thoughts else thought, word(at), tail) for at in range(first, until)])

    def _word(self, index: int) -> bytes:
        return self.part.rest if not index and self.part.rest else self._voice.word(self.part.begun + index)

    def _words(self, first: int, last: int) -> bytes:
        return b"".join([self._word(index) for index in range(first, last)])

    def opening(self) -> bytes:
        return b'%b"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n' % self.head

    def closing(self) -> bytes:
        nothing = b'"delta":{}' if self.answer.chat else b'"text":""'
        return b'%b%b,"logprobs":null,"finish_reason":"%b"}]}\n\n' % (self.head, nothing, self.reason)

    def whole(self) -> bytes:
        """The choice in an answer that is not streamed."""
        part, words = self.part, self._words
        content = words(part.reasoning_tokens, part.output_tokens)
        end = b'"logprobs":null,"finish_reason":"%b"}' % self.reason
        if not self.answer.chat:
            return b'{"index":%d,"text":"%b",%b' % (self.index, content, end)
        thoughts = b',"reasoning_content":"%b"' % words(0, part.reasoning_tokens) if part.reasoning_tokens else b""
        return b'{"index":%d,"message":{"role":"assistant","content":"%b"%b},%b' % (self.index, content, thoughts, end)


class Answer:
    """What one caller gets."""

    __slots__ = (
        "_id",
        "_open",
        "arrived",
        "cached",
        "call",
        "caller",
        "chat",
        "choices",
        "created",
        "cut_after",
        "head",
        "on_cut",
        "started",
    )

    def __init__(self, caller: Caller, call: Call, chat: bool, id: str, created: int, arrived: float) -> None:
        self.caller, self.call, self.chat, self.created, self.arrived = caller, call, chat, created, arrived
        self._id = id.encode()
        self.cut_after: int | None = None
        """A fault: tokens after which the connection is cut."""
        self.on_cut: Callable[[], object] = bool
        self.started = False
        self.cached = 0
        kind = b"chat.completion.chunk" if chat else b"text_completion"
        self.head = b"data: " + self._preamble(kind) if call.stream else b""
        self.choices = [Choice(self, index, part) for index, part in enumerate(call.parts)]
        self._open = len(self.choices)

    def _preamble(self, kind: bytes) -> bytes:
        return b'{"id":"%b","object":"%b","created":%d,"model":%b,' % (self._id, kind, self.created, msgspec.json.encode(self.call.model))

    def start(self, choice: Choice, cached_tokens: int) -> None:
        """The choice's first token is about to come."""
        self.cached += cached_tokens
        if not self.call.stream:
            return
        if not self.started:
            self.caller.start(200, _EVENTS)
        self.started = True
        if self.chat:
            self.caller.send(choice.opening())

    def emit(self, choice: Choice, out: int) -> None:
        """`out` tokens of the choice are out."""
        choice.out = out
        caller = self.caller
        if self.cut_after is not None and out >= self.cut_after:
            self.cut()
        elif not caller.paused:
            caller.send(choice.events(out))

    def finish(self, choice: Choice) -> None:
        """All its tokens are out."""
        choice.out, choice.ended = choice.part.output_tokens, True
        self._open -= 1
        if self.cut_after is not None and choice.out >= self.cut_after:
            self.cut()
        elif not self.call.stream:
            if not self._open:
                self.caller.respond(200, JSON, self._whole())
        elif not self.caller.paused:
            self._catch_up(choice)

    def cut(self) -> None:
        """Break the connection off in the middle."""
        if self.started:
            self.caller.send(b"".join([choice.events(min(choice.out, self.cut_after or 0)) for choice in self.choices]))
        self.caller.abort()
        self.on_cut()

    def resume(self) -> None:
        """The caller reads again: write what it missed."""
        for choice in self.choices:
            if choice.sent < choice.out:
                self._catch_up(choice)

    def _catch_up(self, choice: Choice) -> None:
        data = choice.events(choice.out)
        if not choice.ended:
            self.caller.send(data)
            return
        data += choice.closing()
        if any(not one.ended or one.sent < one.out for one in self.choices):
            self.caller.send(data)
            return
        if self.call.usage_asked:
            data += b'%b"choices":[],"usage":%b}\n\n' % (self.head, self._usage())
        self.caller.end(data + _DONE)

    def _whole(self) -> bytes:
        choices = b",".join([choice.whole() for choice in self.choices])
        kind = b"chat.completion" if self.chat else b"text_completion"
        return b'%b"choices":[%b],"usage":%b}' % (self._preamble(kind), choices, self._usage())

    def _usage(self) -> bytes:
        prompt = self.call.prompt_tokens
        output = sum(choice.out for choice in self.choices)
        usage: dict[str, object] = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
        usage["prompt_tokens_details"] = {"cached_tokens": min(self.cached, prompt)}
        thoughts = sum(choice.part.reasoning_tokens for choice in self.choices)
        if thoughts:
            usage["completion_tokens_details"] = {"reasoning_tokens": thoughts}
        return msgspec.json.encode(usage)
