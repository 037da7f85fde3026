"""Which task class a request belongs to: the first rule of the configuration that matches, compiled once."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import translate
from math import inf, nan
from re import compile as compile_pattern

import msgspec

from penstock.config import Class, Range, When
from penstock.config import Test as Wanted
from penstock.facts import Request

Test = Callable[[Request], bool]


class TaskClass(msgspec.Struct, frozen=True):
    """A class with its numbers in seconds and tokens; infinite where it sets no bound."""

    name: str
    priority: int
    ttft_s: float = inf
    ttft_s_per_token: float = 0.0
    tpot_s: float = inf
    total_s: float = inf


DEFAULT = TaskClass("default", 3)


def compiled(rule: Class) -> TaskClass:
    return TaskClass(
        rule.name,
        rule.priority,
        inf if rule.ttft_ms is None else rule.ttft_ms / 1e3,
        rule.ttft_ms_per_1k / 1e6,
        inf if rule.tpot_ms is None else rule.tpot_ms / 1e3,
        inf if rule.total_ms is None else rule.total_ms / 1e3,
    )


def glob(attribute: str, pattern: str) -> Test:
    if not set(pattern) & set("*?["):
        return lambda request: bool(getattr(request, attribute) == pattern)
    matches = compile_pattern(translate(pattern)).match
    return lambda request: matches(getattr(request, attribute)) is not None


def within(bounds: Range) -> Callable[[float], bool]:
    gt, ge = (-inf if bound is None else bound for bound in (bounds.gt, bounds.ge))
    lt, le = (inf if bound is None else bound for bound in (bounds.lt, bounds.le))
    return lambda number: gt < number < lt and ge <= number <= le


def field(name: str, wanted: Wanted) -> Test:
    """A field of `metadata`. Its values are text; a number or a range is compared with what the text says as a number."""
    if isinstance(wanted, str):
        matches = compile_pattern(translate(wanted)).match
        return lambda request: (text := request.metadata.get(name)) is not None and matches(text) is not None
    inside = within(wanted if isinstance(wanted, Range) else Range(ge=wanted, le=wanted))
    return lambda request: (text := request.metadata.get(name)) is not None and inside(number(text))


def number(text: str) -> float:
    """What the text says; nan, which is in no range, where that is no number."""
    try:
        return float(text)
    except ValueError:
        return nan


def tests(when: When) -> list[Test]:
    found = [glob(name, pattern) for name in ("model", "route", "tenant") if (pattern := getattr(when, name)) is not None]
    if (stream := when.stream) is not None:
        found.append(lambda request: request.stream is stream)
    if when.prompt_tokens is not None:
        inside = within(when.prompt_tokens)
        found.append(lambda request: inside(request.prompt_tokens))
    found += [field(name, wanted) for name, wanted in when.metadata.items()]
    return found


class Classifier:
    """The rules in order. A request that meets none is of the class `default`."""

    def __init__(self, rules: tuple[Class, ...]) -> None:
        self.rules = [(tests(rule.when), compiled(rule)) for rule in rules]
        self.classes = [task for _, task in self.rules] + [DEFAULT]
        self.always = self.classes[0] if not self.rules or not self.rules[0][0] else None

    def __call__(self, request: Request) -> TaskClass:
        if self.always is not None:
            return self.always
        for rule, task in self.rules:
            for test in rule:
                if not test(request):
                    break
            else:
                return task
        return DEFAULT
