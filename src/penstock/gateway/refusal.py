"""What a refused caller is told: status, headers and a body that says why and when to come back."""

from __future__ import annotations

from math import ceil

from penstock.events import REJECT_WHY, Reject
from penstock.facts import Failure, Outcome
from penstock.wire import openai, sse

LONGEST_RETRY_S = 120.0
"""Official clients do not wait longer; they are told not to retry at all."""

REASONS = {
    Outcome.REFUSED_FULL: "no engine is free, and it may not wait: its ladder has no such rung, or the queue is full",
    Outcome.REFUSED_DEADLINE: "no engine could begin the answer within the time its class allows",
    Outcome.EXPIRED: "it waited, and could no longer be begun within the time its class allows",
    Outcome.UNAVAILABLE: "no healthy engine serves this model",
    Outcome.FAILED: "the engines failed it",
}


class Refusal:
    """One Reject in the forms it may be sent in."""

    __slots__ = ("_facts", "code", "message", "queued_ms", "retry_after_ms", "retry_after_s", "status")

    def __init__(self, action: Reject, failure: Failure | None = None) -> None:
        self.status = 502 if failure is Failure.PROTOCOL else 503
        self.code = str(action.outcome)
        self.retry_after_s = max(0.0, action.retry_after_s)
        why = dict(zip(REJECT_WHY, action.why, strict=False))
        reason = REASONS.get(action.outcome, "it was refused")
        if failure is not None:
            reason = f"{reason} ({failure})"
        waits = int(why.get("queue_length", 0))
        queue = f"; {waits} {'request waits' if waits == 1 else 'requests wait'}" if waits else ""
        self.message = f"Not served: {reason}{queue}. Retry in {self.retry_after_s:.1f} s."
        self.queued_ms = int(why.get("queued_s", 0.0) * 1000)
        self.retry_after_ms = ceil(self.retry_after_s * 1000)
        self._facts: dict[str, object] = {
            "retry_after_ms": self.retry_after_ms,
            "eta_ms": ceil((self.retry_after_s + max(0.0, why.get("predicted_ttft_s", 0.0))) * 1000),
            "reason": reason,
        }

    def headers(self) -> bytes:
        retry = b"true" if self.retry_after_s <= LONGEST_RETRY_S else b"false"
        return b"content-type: application/json\r\nretry-after: %d\r\nretry-after-ms: %d\r\nx-should-retry: %b\r\n" % (
            ceil(self.retry_after_s),
            self.retry_after_ms,
            retry,
        )

    def body(self) -> bytes:
        return openai.error(self.status, self.code, self.message, None, **self._facts)

    def event(self) -> bytes:
        """For a stream that has been committed with 200."""
        return sse.error_event(self.status, self.code, self.message, self.retry_after_ms)
