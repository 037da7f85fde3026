"""Refuse at once what no node can serve inside its deadline, and never anything else but what a full queue must.

What could be served only by making an admitted request late, or by shutting out a prompt length that is served less than its
own, cannot be served either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from penstock.facts import Outcome

if TYPE_CHECKING:
    from penstock.policy.views import AdmitView


class Slo:
    prompt: ClassVar[bool] = True

    def refusal(self, view: AdmitView) -> Outcome | None:
        if view.predicted_s > view.left_s or view.breaks_promise or view.crowds_out:
            return Outcome.REFUSED_DEADLINE
        return Outcome.REFUSED_FULL if view.waiting >= view.queue_max else None
