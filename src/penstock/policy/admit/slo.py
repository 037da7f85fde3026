"""Refuse at once what no node can serve inside its deadline, and never anything else but what a full queue must.

A promise counts: what could be served only by making an admitted request late cannot be served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from penstock.facts import Outcome

if TYPE_CHECKING:
    from penstock.policy.views import AdmitView


class Slo(msgspec.Struct, frozen=True):
    def refusal(self, view: AdmitView) -> Outcome | None:
        if view.predicted_s > view.left_s or view.breaks_promise:
            return Outcome.REFUSED_DEADLINE
        return Outcome.REFUSED_FULL if view.waiting >= view.queue_max else None
