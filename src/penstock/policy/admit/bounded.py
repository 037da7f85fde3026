"""Accept while the queue has room: no look at deadlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from penstock.facts import Outcome

if TYPE_CHECKING:
    from penstock.policy.views import AdmitView


class Bounded:
    prompt: ClassVar[bool] = True

    def refusal(self, view: AdmitView) -> Outcome | None:
        return Outcome.REFUSED_FULL if view.waiting >= view.queue_max else None
