"""The conditions of a rule's `when`: each a test of one fact of a request, and the words to say what it wants and what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import translate
from math import inf, isfinite
from re import ASCII
from re import compile as compile_pattern

import msgspec

from penstock.config import Class, Pool, Range, When
from penstock.config import Test as Wanted
from penstock.facts import Request
from penstock.policy.task import TaskClass

Holds = Callable[[Request], bool]
Sees = Callable[[Request], str | None]

_DECIMAL = compile_pattern(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?", ASCII)
"""What counts as a number in a text: no blanks, no signs of other scripts, no `nan`, no `0x10`. Callers write the text: nothing here is
matched in more than one way, so that a long one that is none costs no more than reading it."""
_WILD = frozenset("*?[")
DIFFICULTY = "difficulty"
"""The field of `metadata` in which a caller may say how hard a request is."""
SIGNS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


class Condition(msgspec.Struct, frozen=True):
    of: str
    """`model`, `header.x-task`, `metadata.amount`, ..."""
    wants: str
    """What it must be, in words."""
    seen: Sees
    holds: Holds


class Finding(msgspec.Struct, frozen=True):
    """One condition of a rule beside what the request showed."""

    of: str
    wants: str
    seen: str | None
    """None where the request has no such header or field."""
    holds: bool


class Step(msgspec.Struct, frozen=True):
    """One rule that was tried."""

    task: TaskClass
    findings: tuple[Finding, ...]

    @property
    def matched(self) -> bool:
        return all(finding.holds for finding in self.findings)


class PoolStep(msgspec.Struct, frozen=True):
    """One pool that was tried."""

    pool: str
    serves: bool
    """Whether any of its nodes has the model, and it may; else its rule was not asked."""
    findings: tuple[Finding, ...] = ()

    @property
    def matched(self) -> bool:
        return self.serves and all(finding.holds for finding in self.findings)


def conditions(when: When) -> list[Condition]:
    """What must hold, all of it; cheap ones first."""
    found = [_text(name, pattern) for name in ("model", "route", "tenant") if (pattern := getattr(when, name)) is not None]
    if (stream := when.stream) is not None:
        found.append(Condition("stream", str(stream).lower(), _streamed, lambda request: request.stream is stream))
    if when.prompt_tokens is not None:
        inside = within(when.prompt_tokens)
        found.append(Condition("prompt_tokens", words(when.prompt_tokens), _size, lambda request: inside(request.prompt_tokens)))
    if when.difficulty is not None:
        hard = within(when.difficulty)
        found.append(Condition("difficulty", words(when.difficulty), _difficulty, lambda request: hard(request.difficulty)))
    if when.session is not None:
        found.append(_given("session", _session, when.session))
    found += [_given(f"header.{name.lower()}", _header(name.lower()), wanted) for name, wanted in when.header.items()]
    found += [_given(f"metadata.{name}", _metadata(name), wanted) for name, wanted in when.metadata.items()]
    return found


def headers_read(rules: Iterable[Class | Pool]) -> frozenset[str]:
    """Names of the headers that some rule looks at, in lower case."""
    return frozenset(name.lower() for rule in rules for name in rule.when.header)


def metadata_read(rules: Iterable[Class | Pool]) -> frozenset[str]:
    """Names of the fields of `metadata` that some rule looks at: for the difficulty at the one in which a caller says it."""
    return frozenset(name for rule in rules for name in (*rule.when.metadata, *((DIFFICULTY,) if rule.when.difficulty is not None else ())))


def number(text: str) -> float | None:
    """The finite decimal number that the whole text is; None when it is anything else."""
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if isfinite(value) else None


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text is as the glob says, capitals told apart."""
    if not set(pattern) & _WILD:
        return lambda text: text == pattern
    matches = compile_pattern(translate(pattern)).match
    return lambda text: matches(text) is not None


def within(bounds: Range) -> Callable[[float], bool]:
    gt, ge = (-inf if bound is None else bound for bound in (bounds.gt, bounds.ge))
    lt, le = (inf if bound is None else bound for bound in (bounds.lt, bounds.le))
    return lambda number: gt < number < lt and ge <= number <= le


def words(wanted: Wanted) -> str:
    """`> 1000 and <= 2000`, `= 5`, or the glob itself."""
    if isinstance(wanted, Range):
        return " and ".join(f"{sign} {exact(value)}" for name, sign in SIGNS if (value := getattr(wanted, name)) is not None)
    return wanted if isinstance(wanted, str) else f"= {exact(wanted)}"


def exact(value: float) -> str:
    """Every digit that counts, and no exponent while it can be read without: 1000000, 0.5."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)


def _streamed(request: Request) -> str:
    return str(request.stream).lower()


def _size(request: Request) -> str:
    return str(request.prompt_tokens)


def _difficulty(request: Request) -> str:
    return f"{request.difficulty:.3g}"


def _session(request: Request) -> str | None:
    return request.session or None


def _text(name: str, pattern: str) -> Condition:
    matches = matcher(pattern)
    return Condition(name, pattern, lambda request: str(getattr(request, name)), lambda request: matches(getattr(request, name)))


def _header(name: str) -> Sees:
    return lambda request: request.headers.get(name)


def _metadata(name: str) -> Sees:
    return lambda request: request.metadata.get(name)


def _given(of: str, sees: Sees, wanted: Wanted) -> Condition:
    """A condition on what a caller may leave out; what is absent meets nothing."""
    fits = _fits(wanted)

    def holds(request: Request) -> bool:
        text = sees(request)
        return text is not None and fits(text)

    return Condition(of, words(wanted), sees, holds)


def _fits(wanted: Wanted) -> Callable[[str], bool]:
    if isinstance(wanted, str):
        return matcher(wanted)
    inside = within(wanted if isinstance(wanted, Range) else Range(ge=wanted, le=wanted))

    def fits(text: str) -> bool:
        value = number(text)
        return value is not None and inside(value)

    return fits
