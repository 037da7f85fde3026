"""The rest of a stream, from another engine, in the form of its beginning: the same id, no second opening, one usage for both.

What the caller has already is not sent again: text that the engine was asked to repeat is taken off where it is the same, and where
it is not the rest does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from penstock.wire import chunk

EVENT_BYTES = 1_048_576
"""Longest event held back to be seen whole."""
KEPT = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
"""Fields that a stream's events have in common."""
TEXTS = ("reasoning_content", "content", "text")

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_CHOICES = msgspec.json.Decoder(list[dict[str, Raw]])
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)").search
_NULLS = frozenset((b"null", b'""', b"[]", b"{}"))


class Graft:
    """`again` is the end of the text before, to come once more; `left` the tokens that may come, -1 for no limit; `tokens` and
    `thoughts` those that the caller has and the engine takes for prompt, all and those of them that are thoughts.
    """

    __slots__ = ("_again", "_frame", "_held", "_left", "_said", "_thoughts", "_tokens", "broken", "ended", "shown", "waste")

    def __init__(self, frame: Mapping[str, Raw], again: str, left: int, tokens: int, thoughts: int, *, said: bool, ended: bool) -> None:
        self._frame = {name: frame[name] for name in KEPT if name in frame}
        self._again, self._left, self._tokens, self._thoughts = again, left, tokens, thoughts
        self._said = said
        """The answer proper has begun: no more thoughts come."""
        self._held = b""
        self.ended = ended
        """The caller knows how it ended."""
        self.shown = False
        """The engine has emitted something."""
        self.waste = 0
        """Tokens beyond the limit: the engine had to be asked for one to say how the answer ends."""
        self.broken = ""
        """Why the rest does not fit; empty while it does."""

    def feed(self, data: bytes) -> bytes:
        """The events to send for `data`, whole ones only."""
        data = self._held + data
        out: list[bytes] = []
        start = 0
        while (found := _BLANK_LINE(data, start)) is not None and not self.broken:
            out.append(self._event(data[start : found.end()]))
            start = found.end()
        self._held = data[start:]
        if len(self._held) > EVENT_BYTES:
            self.broken = "an event is too long"
        return b"".join(out)

    def flush(self) -> bytes:
        """What is held of a last event that the stream's proper end completes."""
        held, self._held = self._held, b""
        return self._event(held + b"\n\n") if held.strip() and not self.broken else b""

    def _event(self, event: bytes) -> bytes:
        data = chunk.payload(event)
        if not data:
            comment = event.strip(b"\r\n")
            return comment + b"\n\n" if comment else b""
        if data == b"[DONE]":
            return b"data: [DONE]\n\n"
        try:
            return self._chunk(_OBJECT.decode(data))
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            self.broken = "an event is none of OpenAI's"
            return b""

    def _chunk(self, fields: dict[str, Raw]) -> bytes:
        if "error" in fields:
            self.broken = "the engine sent an error"
            return b""
        choices = _CHOICES.decode(fields.get("choices", Raw(b"[]")))
        sent = [kept for choice in choices if (kept := self._choice(choice)) is not None]
        usage = fields.get("usage")
        counted = usage is not None and bytes(usage) != b"null"
        if self.broken or not (sent or counted):
            return b""
        fields = {name: value for name, value in fields.items() if name not in KEPT}
        fields["choices"] = Raw(msgspec.json.encode(sent))
        if counted and usage is not None:
            fields["usage"] = Raw(msgspec.json.encode(self._usage(usage)))
        return b"data: %b\n\n" % msgspec.json.encode(self._frame | fields)

    def _choice(self, choice: dict[str, Raw]) -> dict[str, Raw] | None:
        """The choice as it is sent; None where it adds nothing."""
        holder = _OBJECT.decode(choice["delta"]) if "delta" in choice else choice
        holder.pop("role", None)
        empty = True
        for name in list(holder):
            raw = bytes(holder[name])
            if name in TEXTS and raw[:1] == b'"' and len(raw) > 2:
                text = self._text(name, msgspec.json.decode(raw, type=str))
                holder[name] = Raw(msgspec.json.encode(text))
                empty = empty and not text
            elif holder is not choice and raw not in _NULLS:
                self.broken = f"it has {name}, which what came before has not"
        if "delta" in choice:
            choice["delta"] = Raw(msgspec.json.encode({name: raw for name, raw in holder.items() if bytes(raw) != b'""'}))
        finished = bytes(choice.get("finish_reason", Raw(b"null"))) != b"null"
        if finished and self.waste:
            choice["finish_reason"] = Raw(b'"length"')
        if (empty and not finished) or self.ended:
            return None
        self.ended = finished
        return choice

    def _text(self, name: str, text: str) -> str:
        """What the caller is sent of it."""
        self.shown = True
        if name == "reasoning_content" and self._said:
            self.broken = "thoughts come after the answer has begun"
        if self._left == 0 or self.ended:
            self.waste += 1
            return ""
        self._left -= 1
        again = self._again
        if name != "reasoning_content" and not self._said:
            # What was to be repeated was the end of thoughts: they are over.
            self._said, again = True, again if not self._thoughts else ""
        if not again:
            self._again = ""
            return text
        same = min(len(again), len(text))
        if again[:same] != text[:same]:
            self.broken = "it does not repeat what came before"
        self._again = again[same:]
        return text[same:]

    def _usage(self, raw: Raw) -> dict[str, object]:
        """Counted as one answer: what the engine took for prompt was output."""
        usage: dict[str, object] = msgspec.json.decode(raw)
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(output, int):
            prompt, output = max(0, prompt - self._tokens), max(0, output - self.waste) + self._tokens
            usage |= {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict) and isinstance(cached := details.get("cached_tokens"), int):
                details["cached_tokens"] = min(cached, prompt)
            if self._thoughts:
                details = usage.setdefault("completion_tokens_details", {})
                if isinstance(details, dict):
                    own = (details.get("reasoning_tokens") or 0) - (0 if self._said else self.waste)
                    details["reasoning_tokens"] = own + self._thoughts
        return usage
