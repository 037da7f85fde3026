"""What a caller asks of Penstock beside the call: a class, a ladder, a session, and the headers that rules look at."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.config import Class, Pool, Rung
from penstock.core.classify import DEFAULT
from penstock.core.condition import headers_read, metadata_read
from penstock.errors import CallError
from penstock.facts import Request, Route
from penstock.gateway.auth import Tenant
from penstock.wire import openai, session

CLASS, LADDER, CACHE, RETRY = "x-penstock-class", "x-penstock-ladder", "x-penstock-cache", "x-stainless-retry-count"
SAMPLED = "sampled"
"""The one thing that may be asked of the cache."""
SHOWN = 16
"""Names that an error lists."""
RUNGS = frozenset(map(str, Rung))


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What a head said; see the fields of `facts.Request`."""

    task: str = ""
    ladder: tuple[str, ...] | None = None
    headers: dict[str, str] = {}
    retry: int = -1
    session: str = ""


NOTHING = Asked()


class Form:
    """Which headers and metadata fields count, known from the rules."""

    __slots__ = ("classes", "headers", "metadata")

    def __init__(self, rules: tuple[Class, ...], pools: tuple[Pool, ...] = ()) -> None:
        every: tuple[Class | Pool, ...] = (*rules, *pools)
        self.headers, self.metadata = tuple(sorted(headers_read(every))), tuple(sorted(metadata_read(every)))
        self.classes = tuple(dict.fromkeys([*(rule.name for rule in rules), DEFAULT.name]))

    def read(self, headers: Mapping[str, str], tenant: Tenant) -> Asked:
        """From a head's fields, named in lower case. Raises CallError for what there is not, or what `tenant` may not ask."""
        task, ladder = headers.get(CLASS), headers.get(LADDER)
        if headers.get(CACHE, SAMPLED) != SAMPLED:
            raise CallError(400, "invalid_value", f"{CACHE!r} may only be {SAMPLED}; leave it out otherwise.", field=CACHE)
        retry, named = headers.get(RETRY), headers.get(session.HEADER)
        if task is None and ladder is None and retry is None and named is None and not self.headers:
            return NOTHING
        if task is not None:
            self._check_class(task, tenant)
        seen = {name: headers[name] for name in self.headers if name in headers}
        return Asked(task or "", None if ladder is None else rungs(ladder), seen, tries(retry), session.header(named or ""))

    def _check_class(self, task: str, tenant: Tenant) -> None:
        if task in self.classes and tenant.may_ask(task):
            return
        allowed = [name for name in self.classes if tenant.may_ask(name)]
        others = ", and others" if len(allowed) > SHOWN else ""
        may = f"it may ask for {', '.join(allowed[:SHOWN])}{others}" if allowed else "it may ask for none; leave the header out"
        whose = f"Key of {tenant.name}" if tenant.name else "This caller"
        if task not in self.classes:
            raise CallError(400, "unknown_class", f"There is no class {task[:64]!r}. {whose}: {may}.", field=CLASS)
        raise CallError(403, "class_not_allowed", f"{whose}: the class {task!r} may not be asked for; {may}.", field=CLASS)


def rungs(text: str) -> tuple[str, ...]:
    """A comma list of rungs. Raises CallError for one that there is not, or that comes twice."""
    named = tuple(part.strip() for part in text.split(","))
    for name in named:
        if name not in RUNGS:
            raise CallError(400, "unknown_rung", f"There is no rung {name[:64]!r}; known: {', '.join(Rung)}.", field=LADDER)
    if len({*named}) < len(named):
        raise CallError(400, "invalid_value", f"A rung stands twice in {LADDER!r}; name each once.", field=LADDER)
    return named


def tries(text: str | None) -> int:
    """How many tries an official client says went before this one; -1 where nothing, or no small number, is said."""
    return int(text) if text is not None and len(text) <= 2 and text.isascii() and text.isdigit() else -1


def request(id: int, route: Route, ask: openai.Call, tenant: Tenant, asked: Asked, cached: bool = False, ticket: bool = False) -> Request:
    """The facts that the core is given of a call; see the fields of `facts.Request`."""
    return Request(
        id, ask.model, route, tenant.name, ask.prompt_tokens, ask.max_tokens, ask.stream, ask.blocks,
        asked.session or ask.session,
        asked.task, tenant.max_priority, asked.ladder, asked.headers, ask.metadata, cached, asked.retry, ticket,
        difficulty=ask.difficulty,
    )  # fmt: skip
