"""Where in a model's text its thoughts end: `<think>`...`</think>` at the very beginning, and nowhere else.

Law: pure. Nothing depends on how the text was cut into pieces. What may be the beginning of a tag is kept until the next piece, and
nothing else is; so at most seven characters wait, or whitespace before anything else.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

OPEN, CLOSE = "<think>", "</think>"
SPACE = " \t\r\n"
LEAD_CHARS = 64
"""Whitespace before an opening tag; after more of it there is none."""

LEAD, OPENED, THOUGHT, CLOSED, PLAIN = range(5)
"""Nothing but whitespace yet; just after the opening tag; in the thoughts; just after the closing tag; in the answer."""

_OPENING = ("*deepseek-r1*", "*deepseek-reasoner*", "*qwq-*", "*-thinking*")
"""Models whose templates end the prompt with the opening tag, so that answers begin inside."""
_OPENING_ON_DEMAND = ("*deepseek*v3.[1-9]*", "*deepseek*v[4-9]*")
"""The same where thinking was asked for."""


def begins_inside(model: str, thinks: bool | None) -> bool:
    """Whether a model of that name begins its answers with thoughts, without the tag: its engine may take them out, or not."""
    name = model.lower()
    if thinks is False:
        return False
    patterns = _OPENING if thinks is None else _OPENING + _OPENING_ON_DEMAND
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Splitter:
    """The text of one choice, piece by piece. `inside` says that the opening tag is in the prompt."""

    __slots__ = ("closed", "held", "inside", "state", "tagged")

    def __init__(self, inside: bool = False) -> None:
        self.inside = inside
        self.state = LEAD
        self.held = ""
        self.tagged = False
        """The text itself had the opening tag."""
        self.closed = False
        """It had the closing one."""

    def feed(self, text: str) -> tuple[str, str]:
        """The thoughts and the answer in what came before and was kept, and in `text`."""
        if self.state == PLAIN:
            return "", text
        text, self.held = self.held + text, ""
        if self.state == LEAD:
            text = self._lead(text)
        if self.state == OPENED:
            text = text.lstrip(SPACE)
            if text:
                self.state = THOUGHT
        thought = ""
        if self.state == THOUGHT:
            thought, text = self._thought(text)
        if self.state == CLOSED:
            text = text.lstrip(SPACE)
            if text:
                self.state = PLAIN
        return thought, text

    def end(self) -> tuple[str, str]:
        """What was kept, now that nothing follows; there is nothing to split any more."""
        held, self.held = self.held, ""
        thought = self.state in (OPENED, THOUGHT)
        self.state = PLAIN
        return (held, "") if thought else ("", held)

    def answer(self) -> None:
        """The engine says itself what is thought and what is not."""
        self.state, self.inside = PLAIN, False

    @property
    def thinking(self) -> bool:
        """In the midst of thoughts, and nothing is kept."""
        return self.state == THOUGHT and not self.held

    def _lead(self, text: str) -> str:
        bare = text.lstrip(SPACE)
        if len(text) - len(bare) > LEAD_CHARS:
            self.state = THOUGHT if self.inside else PLAIN
            return text
        if bare.startswith(OPEN):
            self.state, self.tagged = OPENED, True
            return bare[len(OPEN) :]
        if OPEN.startswith(bare):
            self.held = text
            return ""
        if self.inside:
            self.state = OPENED
            return bare
        self.state = PLAIN
        return text

    def _thought(self, text: str) -> tuple[str, str]:
        at = text.find(CLOSE)
        if at >= 0:
            self.state, self.closed = CLOSED, True
            return text[:at], text[at + len(CLOSE) :]
        keep = beginning(text, CLOSE)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep], ""


def beginning(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    for count in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:count]):
            return count
    return 0


def alone(text: str, at: int) -> bool:
    """Whether the closing tag at `at` has its line for itself: no sentence that speaks of tags does that."""
    before, after = text[:at].rstrip(" \t"), text[at + len(CLOSE) :].lstrip(" \t\r")
    return (not before or before.endswith("\n")) and (not after or after.startswith("\n"))
