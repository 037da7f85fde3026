"""What became of a request under a configuration, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.core.classify import Finding
    from penstock.gateway.walk import Walk


def lines(walk: Walk) -> Iterator[str]:
    """For a person: the request, each rule with what it saw, and what comes of it."""
    facts = walk.request
    size = f"{facts.prompt_tokens} prompt tokens{', streamed' if facts.stream else ''}"
    yield f"request  {facts.route} for {facts.model}, {size}, {f'key of {facts.tenant}' if facts.tenant else 'no key'}"
    for note in walk.notes:
        yield f"note     {note}"
    if facts.task:
        yield f"asked    for the class {facts.task} by x-penstock-class: the rules are not tried"
    for step in walk.steps:
        yield f"rule     {step.task.name}: {'matches' if step.matched else 'no match'}"
        for finding in step.findings:
            yield f"           {'yes' if finding.holds else 'no '}  {_finding(finding)}"
        if not step.findings:
            yield "           yes  everything"
    if walk.untried:
        yield f"rule     {', '.join(walk.untried)}: not tried"
    met = bool(facts.task) or (walk.steps and walk.steps[-1].matched)
    yield f"class    {walk.task.name}{'' if met else ' (no rule matches)'}"
    yield from _pools(walk)
    capped = f" (the class has {walk.task.priority}; the key of {facts.tenant} allows at most {facts.max_priority})"
    yield f"priority {walk.priority}{capped if walk.priority < walk.task.priority else ''}"
    yield f"value    {walk.task.value:g}"
    yield f"deadline {_deadline(walk)}"
    yield f"ladder   {', '.join(walk.ladder) or 'none: no rung of the class is among those that the caller allows'}"


def _pools(walk: Walk) -> Iterator[str]:
    """Where it runs."""
    for step in walk.pools:
        if not step.serves:
            yield f"rule     pool {step.pool}: serves no {walk.request.model}"
            continue
        yield f"rule     pool {step.pool}: {'matches' if step.matched else 'no match'}"
        for finding in step.findings:
            yield f"           {'yes' if finding.holds else 'no '}  {_finding(finding)}"
        if not step.findings:
            yield "           yes  everything"
    if walk.pools_untried:
        yield f"rule     pool {', '.join(walk.pools_untried)}: not tried"
    if walk.pools:
        served = f"on {', '.join(walk.nodes)}" if walk.nodes else "on no node of the file"
        after = f", then {', then '.join(walk.siblings)}" if walk.siblings else ""
        yield f"pool     {walk.pool or 'none'} ({served}{after})"


def _finding(finding: Finding) -> str:
    seen = "absent" if finding.seen is None else repr(finding.seen) if "." in finding.of else finding.seen or "none"
    return f"{finding.of} {finding.wants}: {seen}"


def _deadline(walk: Walk) -> str:
    if walk.patient:
        return "none: it waits as long as it takes"
    told = []
    if walk.ttft_ms is not None:
        told.append(f"first token within {walk.ttft_ms:g} ms")
    if walk.total_ms is not None:
        told.append(f"whole answer within {walk.total_ms:g} ms")
    return " and ".join(told) or "none: it waits until the queue's bound (knobs.queue_ttl_s)"


def document(walk: Walk) -> dict[str, object]:
    """The same for a program."""
    from penstock.gateway.walk import milliseconds

    facts = walk.request
    return {
        "class": walk.task.name,
        "asked": bool(facts.task),
        "priority": walk.priority,
        "class_priority": walk.task.priority,
        "max_priority": facts.max_priority,
        "value": walk.task.value,
        "floor": walk.task.floor,
        "patient": walk.patient,
        "ttft_ms": walk.ttft_ms,
        "tpot_ms": milliseconds(walk.task.tpot_s),
        "total_ms": walk.total_ms,
        "ladder": walk.ladder,
        "pool": walk.pool or None,
        "nodes": walk.nodes,
        "siblings": walk.siblings,
        "request": {
            "route": facts.route,
            "model": facts.model,
            "tenant": facts.tenant,
            "stream": facts.stream,
            "prompt_tokens": facts.prompt_tokens,
            "max_tokens": facts.max_tokens,
            "headers": facts.headers,
            "metadata": facts.metadata,
            "session": facts.session,
            "difficulty": facts.difficulty,
        },
        "rules": [{"class": step.task.name, "matches": step.matched, "conditions": step.findings} for step in walk.steps],
        "not_tried": walk.untried,
        "pools": [{"pool": step.pool, "serves": step.serves, "matches": step.matched, "conditions": step.findings} for step in walk.pools],
        "pools_not_tried": walk.pools_untried,
        "notes": walk.notes,
    }
