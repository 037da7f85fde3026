"""What the answers were, summed up: one `add` a call, flat arrays, no clock."""

from __future__ import annotations

from array import array
from collections import Counter
from enum import StrEnum

from penstock.engine.histogram import Histogram
from penstock.load.slo import Slo


class Kind(StrEnum):
    """How a call ended, as a caller sees it."""

    COMPLETED = "completed"
    REFUSED = "refused"
    """429 or 503, or inside a held stream a typed error with `retry_after_ms`."""
    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    STREAM_ERROR = "stream_error"
    """A typed error inside a stream."""
    TRUNCATED = "truncated"
    """The answer ended without its proper end."""
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    HTTP_OTHER = "http_other"


ERRORS = tuple(kind for kind in Kind if kind not in (Kind.COMPLETED, Kind.REFUSED))


class Tally:
    """The results of one run, or of one step of a search."""

    def __init__(self, slo: Slo) -> None:
        self.slo = slo
        self.kinds: Counter[Kind] = Counter()
        self.statuses: Counter[int] = Counter()
        self.good = 0
        self.output_tokens = 0
        self.ttft_s, self.tpot_s, self.late_s = array("d"), array("d"), array("d")
        self.prompt_tokens, self.kept = array("q"), array("b")
        self.refusals_streamed = 0
        self.retry_after_s = array("d")
        self.gaps = Histogram()
        """Times between tokens."""
        self.good_until = self.ended_at = 0.0
        """When the last good answer's first token came, and when the last call ended, on the clock of the calls."""
        self.messages: dict[str, str] = {}
        """The first message seen for each kind of error."""

    @property
    def ended(self) -> int:
        return len(self.kept)

    def complete(self, prompt_tokens: int, due: float, first: float, last: float, output_tokens: int) -> None:
        """A whole answer: when it was due, and when its first and last tokens came."""
        # Tokens that all came at once, as in an answer that is not streamed, show no time between them.
        ttft_s, tpot_s = first - due, (last - first) / (output_tokens - 1) if output_tokens > 1 and last > first else None
        good = self.slo.met(prompt_tokens, ttft_s, tpot_s)
        if good and first > self.good_until:
            self.good_until = first
        self.ended_at = max(self.ended_at, last)
        self.ttft_s.append(ttft_s)
        if tpot_s is not None:
            self.tpot_s.append(tpot_s)
        self.output_tokens += output_tokens
        self._end(Kind.COMPLETED, prompt_tokens, good)

    def refuse(self, prompt_tokens: int, retry_after_s: float | None, *, streamed: bool = False) -> None:
        if retry_after_s is not None:
            self.retry_after_s.append(retry_after_s)
        self.refusals_streamed += streamed
        self._end(Kind.REFUSED, prompt_tokens, False)

    def fail(self, kind: Kind, prompt_tokens: int, message: str = "") -> None:
        if message:
            self.messages.setdefault(kind.value, message)
        self._end(kind, prompt_tokens, False)

    def _end(self, kind: Kind, prompt_tokens: int, good: bool) -> None:
        self.kinds[kind] += 1
        self.good += good
        self.prompt_tokens.append(prompt_tokens)
        self.kept.append(good)
