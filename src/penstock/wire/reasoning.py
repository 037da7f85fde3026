"""What models think, in DeepSeek's form whatever their engine makes of it: `reasoning_content` beside `content`, and no tags.

Engines that have that form already are left alone, as is everything after the thoughts: there the relay knows events by their form
and asks nobody. Whether an answer whose opening tag is in the prompt begins inside its thoughts cannot be seen in a stream: see `Habit`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from penstock.wire import chunk, think
from penstock.wire.deltas import FIELD, KEY, NULL, OTHERS, edited, made, rename, text_of, under_own_name
from penstock.wire.toolcalls import Gathered, ToolCall, read

WATCHED: Final = 8
"""Streamed answers of a node and model that are looked through for a closing tag, while none has shown how they begin."""
STRANDS: Final = 128
"""Choices of an answer that are looked at."""
KEPT_BYTES: Final = 262_144
"""Of thoughts, for what may have to be done with them at the end."""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])


class Habit:
    """How the answers of one model begin on one node, learned from them. Calls that asked for thoughts, those that asked for none, and
    those that said nothing are apart.

    An answer begins inside its thoughts if one before it did (a closing tag without an opening one); while none has shown it, by the
    model's name. One that ended by itself without a closing tag shows that they do not.
    """

    __slots__ = ("inside", "named", "thinks", "watched")

    def __init__(self, model: str = "", thinks: bool | None = None) -> None:
        self.thinks = thinks
        self.named = think.begins_inside(model, thinks)
        self.inside: bool | None = None
        self.watched = 0

    @property
    def assumed(self) -> bool:
        return self.named if self.inside is None else self.inside

    def counts(self, text: str, at: int) -> bool:
        """Whether the closing tag at `at` of a text without an opening one ends thoughts, or is only spoken of."""
        if self.thinks is False:
            return False
        return self.thinks is True or self.named or self.inside is True or think.alone(text, at)

    def watch(self) -> bool:
        """Whether to look through one more answer."""
        if self.inside is not None or self.thinks is False or self.watched >= WATCHED:
            return False
        self.watched += 1
        return True


class Strand:
    """One choice of a streamed answer."""

    __slots__ = ("answered", "calls", "kept", "said", "size", "split", "tail", "twice")

    def __init__(self, inside: bool, keep: bool, collect: bool) -> None:
        self.split = think.Splitter(inside)
        self.kept: list[str] | None = [] if keep else None
        """Thoughts that may turn out to be the answer."""
        self.said: list[str] | None = [] if collect else None
        """Thoughts, to be remembered."""
        self.size = 0
        self.calls = Gathered()
        self.answered = False
        self.tail = ""
        """The end of what was watched."""
        self.twice = False
        """Its thoughts come under another name, with DeepSeek's empty beside it."""

    def note(self, thought: str) -> None:
        if not thought:
            return
        for parts in (self.kept, self.said):
            if parts is not None:
                parts.append(thought)
        self.size += len(thought)
        if self.size + self.calls.bytes > KEPT_BYTES:
            self.kept = self.said = None


class Thoughts:
    """One streamed answer on its way through `sse.Relay`."""

    __slots__ = ("_collect", "_habit", "_inside", "_last", "_normalise", "_strands", "_watch", "settled")

    def __init__(self, habit: Habit, *, normalise: bool = True, collect: bool = False, inside: bool | None = None) -> None:
        self._habit = habit
        self._normalise, self._collect = normalise, collect
        self._inside = normalise and (habit.assumed if inside is None else inside)
        self._watch = normalise and not self._inside and habit.watch()
        self._strands: dict[int, Strand] = {}
        self._last = b""
        """An event whose form those have that are made here."""
        self.settled = False
        """Nothing will be done any more but give a field another name."""

    def put(self, seen: chunk.Chunk, event: bytes) -> bytes:
        """What to send for an event."""
        out = event
        edits: list[tuple[str, str] | None] = []
        named = False
        for choice in seen.choices or ():
            strand = self._strand(choice.index)
            edit = None
            if strand is not None:
                named = self._fields(strand, choice) or named
                if self._normalise:
                    edit = self._text(strand, choice)
            edits.append(edit)
        try:
            if named:
                out = under_own_name(out, seen)
            if any(edit is not None for edit in edits):
                out = edited(out, edits)
        except (msgspec.MsgspecError, UnicodeError):
            # Something beside what was read of it is no JSON after all.
            out = event
        if not self._settle():
            self._last = event
        return out

    def form(self, index: int | None, key: bytes) -> tuple[bytes, bool] | None:
        """The key under which text that comes under `key` is sent as it is, and whether tags must be looked for in it; None where
        each event has to be read.
        """
        name = key.decode()
        strand = self._strand(index)
        if strand is None:
            return key, False
        if name == "content":
            if self._watch:
                return None
            if strand.split.state == think.PLAIN or not self._normalise:
                return key, False
            keeps = strand.kept is not None or strand.said is not None
            return (KEY, True) if strand.split.thinking and not keeps else None
        if key == KEY or name in OTHERS:
            return None if strand.said is not None or strand.twice else (KEY if self._normalise else key, False)
        return key, False

    def closing(self) -> bytes:
        """Events with what is still kept, for the end of the stream."""
        if not self._last:
            return b""
        out = b""
        for index, strand in self._strands.items():
            if strand.split.state != think.PLAIN:
                thought, text = strand.split.end()
                strand.note(thought)
                out += made(self._last, index, thought, text)
        self._last = b""
        return out

    def remembered(self) -> list[tuple[list[ToolCall], str]]:
        """The tool calls of each choice, and the thoughts before them."""
        found = [(strand.calls.all(), "".join(strand.said)) for strand in self._strands.values() if strand.said]
        return [(calls, text) for calls, text in found if calls and text]

    def _strand(self, index: int | None) -> Strand | None:
        index = index or 0
        strand = self._strands.get(index)
        if strand is None and len(self._strands) < STRANDS:
            keep = self._inside and self._habit.inside is None
            strand = self._strands[index] = Strand(self._inside, keep, self._collect)
        return strand

    def _settle(self) -> bool:
        plain = all(strand.split.state == think.PLAIN for strand in self._strands.values())
        self.settled = plain and not self._watch and not self._collect
        return plain

    def _fields(self, strand: Strand, choice: chunk.Choice) -> bool:
        """Notice what the engine itself calls thoughts, and tool calls; whether a name must change."""
        delta = choice.delta
        if delta is None:
            return False
        own = text_of(delta.reasoning_content)
        other = "" if own else text_of(delta.reasoning) or text_of(delta.thinking)
        if own or other:
            if strand.said is not None:
                strand.note(own or other)
            if not strand.split.held:
                strand.split.answer()
            self._habit.inside, self._watch = False, False
            strand.twice = bool(other) and delta.reasoning_content is not chunk.ABSENT
        if self._collect and delta.tool_calls is not chunk.ABSENT:
            strand.calls.add(delta.tool_calls)
        return bool(other) and self._normalise

    def _text(self, strand: Strand, choice: chunk.Choice) -> tuple[str, str] | None:
        """Thoughts and answer in the choice's content; None where it stays as it is."""
        split, delta = strand.split, choice.delta
        given = "" if delta is None else text_of(delta.content)
        if split.state == think.PLAIN:
            thought, text = "", given
        else:
            thought, text = self._split(strand, given, bool(choice.finish_reason) or _other_output(delta))
        if self._watch and given:
            self._look(strand, given)
        strand.answered = strand.answered or bool(text)
        if choice.finish_reason == "stop":
            text += self._mistaken(strand)
        return None if not thought and text == given else (thought, text)

    def _split(self, strand: Strand, given: str, last: bool) -> tuple[str, str]:
        split, closed = strand.split, strand.split.closed
        thought, text = split.feed(given) if given else ("", "")
        if split.closed and not closed:
            strand.kept = None
            self._habit.inside = not split.tagged
        if last:
            held, rest = split.end()
            thought, text = thought + held, text + rest
        strand.note(thought)
        return thought, text

    def _mistaken(self, strand: Strand) -> str:
        """The answer, where all of it was taken for thoughts: it came to its own end, and no closing tag."""
        split = strand.split
        if strand.answered or not strand.size or split.closed or split.tagged or not split.inside:
            return ""
        self._habit.inside = False
        kept, strand.kept = strand.kept, None
        return "".join(kept or ())

    def _look(self, strand: Strand, text: str) -> None:
        """Learn from a closing tag that comes too late for this answer."""
        text = strand.tail + text
        at = text.find(think.CLOSE)
        if at >= 0 and strand.split.state == think.PLAIN and not strand.split.tagged and self._habit.counts(text, at):
            self._habit.inside, self._watch = True, False
        strand.tail = text[-2 * len(think.CLOSE) :]


def shows(body: bytes) -> bool:
    """Whether a JSON answer may have thoughts in it, by what is found without reading it."""
    return b'"reasoning' in body or (b"think" in body and (b"think>" in body or b'"thinking"' in body or b"think\\u003" in body))


def whole(body: bytes, habit: Habit, *, normalise: bool = True) -> tuple[bytes, list[tuple[list[ToolCall], str]]]:
    """A JSON answer, and what is to be remembered of it: tool calls and the thoughts before them. The same object where nothing changes."""
    try:
        fields = _OBJECT.decode(body)
        choices = _OBJECTS.decode(fields["choices"])
        messages = [_OBJECT.decode(choice["message"]) for choice in choices]
    except (msgspec.MsgspecError, RecursionError, UnicodeError, KeyError):
        return body, []
    changed = False
    memory: list[tuple[list[ToolCall], str]] = []
    for choice, message in zip(choices, messages, strict=True):
        if normalise and _arrange(choice, message, habit):
            choice["message"] = Raw(msgspec.json.encode(message))
            changed = True
        calls = read(message.get("tool_calls", b""))
        if calls and (said := text_of(message.get(FIELD, NULL))) and len(said) <= KEPT_BYTES:
            memory.append((calls, said))
    if not changed:
        return body, memory
    fields["choices"] = Raw(msgspec.json.encode(choices))
    return msgspec.json.encode(fields), memory


def _arrange(choice: dict[str, Raw], message: dict[str, Raw], habit: Habit) -> bool:
    """Bring a whole message into form; whether anything changed."""
    changed = rename(message)
    said, text = text_of(message.get(FIELD, NULL)), text_of(message.get("content", NULL))
    if said:
        if text or not _mistaken(choice, message, habit):
            return changed
        # A parser that waits for a closing tag has taken all of it for thoughts.
        message["content"] = message.pop(FIELD)
        return True
    split = think.Splitter(inside=_closes(text, habit))
    thought, answer = split.feed(text)
    last, rest = split.end()
    thought, answer = thought + last, answer + rest
    if not thought and answer == text:
        return changed
    if split.tagged:
        habit.inside = False
    elif split.inside:
        habit.inside = True
    message["content"] = Raw(msgspec.json.encode(answer))
    if thought:
        message[FIELD] = Raw(msgspec.json.encode(thought))
    return True


def _closes(text: str, habit: Habit) -> bool:
    """Whether a text begins inside its thoughts: all of it is here, so the closing tag tells."""
    at = text.find(think.CLOSE)
    return at >= 0 and not text.lstrip(think.SPACE).startswith(think.OPEN) and habit.counts(text, at)


def _mistaken(choice: dict[str, Raw], message: dict[str, Raw], habit: Habit) -> bool:
    """Whether thoughts without an answer are an answer. A model that was to think may have ended in the midst of it."""
    ended = bytes(choice.get("finish_reason", NULL)) == b'"stop"' and bytes(message.get("tool_calls", NULL)) in chunk.EMPTY
    return ended and habit.thinks is not True and not habit.named


def _other_output(delta: chunk.Delta | None) -> bool:
    """Output of another kind: nothing more belongs to what was kept."""
    if delta is None:
        return False
    others = (delta.reasoning_content, delta.reasoning, delta.thinking, delta.tool_calls, delta.function_call)
    return any(raw is not chunk.ABSENT and bytes(raw) not in chunk.EMPTY for raw in others)
