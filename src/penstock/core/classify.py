"""Which task class a request belongs to: the one it asked for, or the first rule of the configuration that matches, compiled once.

`explain` walks the very conditions that `__call__` tries, so that what a person is told is what happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from penstock.config import Class, OnLoss
from penstock.core.condition import Condition, Finding, Step, conditions
from penstock.facts import Request
from penstock.policy.task import DEFAULT, TaskClass

__all__ = ["DEFAULT", "Classifier", "Finding", "Step", "TaskClass", "compiled"]


def compiled(rule: Class) -> TaskClass:
    return TaskClass(
        rule.name,
        rule.priority,
        inf if rule.ttft_ms is None else rule.ttft_ms / 1e3,
        rule.ttft_ms_per_1k / 1e6,
        inf if rule.tpot_ms is None else rule.tpot_ms / 1e3,
        inf if rule.total_ms is None else rule.total_ms / 1e3,
        rule.value,
        rule.floor,
        tuple(map(str, rule.ladder)),
        rule.timeout == "none",
        rule.on_loss is OnLoss.CONTINUE,
    )


class Classifier:
    """The rules in order. A request that meets none is of the class `default`."""

    def __init__(self, rules: tuple[Class, ...]) -> None:
        self.conditions: list[tuple[list[Condition], TaskClass]] = [(conditions(rule.when), compiled(rule)) for rule in rules]
        self.rules = [([condition.holds for condition in found], task) for found, task in self.conditions]
        self.classes = [task for _, task in self.rules] + [DEFAULT]
        self.named = {task.name: task for task in reversed(self.classes)}
        self.always = self.classes[0] if not self.rules or not self.rules[0][0] else None

    def __call__(self, request: Request) -> TaskClass:
        if request.task and (asked := self.named.get(request.task)) is not None:
            return asked
        if self.always is not None:
            return self.always
        for rule, task in self.rules:
            for test in rule:
                if not test(request):
                    break
            else:
                return task
        return DEFAULT

    def explain(self, request: Request) -> tuple[TaskClass, list[Step]]:
        """The class, and the rules that were tried for it: none when the caller asked for it by name."""
        if request.task in self.named:
            return self.named[request.task], []
        steps: list[Step] = []
        for step in self._steps(request):
            steps.append(step)
            if step.matched:
                return step.task, steps
        return DEFAULT, steps

    def _steps(self, request: Request) -> Iterator[Step]:
        for found, task in self.conditions:
            yield Step(task, tuple(Finding(one.of, one.wants, one.seen(request), one.holds(request)) for one in found))
