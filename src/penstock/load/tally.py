"""What the answers were, summed up: one `add` a call, flat arrays, no clock."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

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


class Gaps:
    """Times between tokens, as counts in buckets that grow by 2%: flat memory for any number of tokens."""

    _PER_E = 50.0
    _FLOOR_S = 1e-6

    def __init__(self) -> None:
        self.count = 0
        self._buckets = [0] * (int(math.log(3_600 / self._FLOOR_S) * self._PER_E) + 2)

    def add(self, gap_s: float, together: int = 1) -> None:
        """`together` tokens came in one read, `gap_s` after the token before them: the others followed at once."""
        self.count += together
        self._buckets[0] += together - 1
        if gap_s > self._FLOOR_S:
            self._buckets[min(int(math.log(gap_s / self._FLOOR_S) * self._PER_E) + 1, len(self._buckets) - 1)] += 1
        else:
            self._buckets[0] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds, within 2%; None when there are none."""
        left = share * self.count
        for index, held in enumerate(self._buckets):
            left -= held
            if held and left <= 0:
                return self._FLOOR_S * math.exp((index - 0.5) / self._PER_E) if index else 0.0
        return None


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
        self.gaps = Gaps()
        self.messages: dict[str, str] = {}
        """The first message seen for each kind of error."""

    @property
    def ended(self) -> int:
        return len(self.kept)

    def complete(self, prompt_tokens: int, ttft_s: float, tpot_s: float | None, output_tokens: int) -> None:
        """A whole answer; `tpot_s` None for a one-token answer."""
        good = self.slo.met(prompt_tokens, ttft_s, tpot_s or 0.0)
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


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of sorted values; None when there are none."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share > 0 else 0)] if ordered else None
