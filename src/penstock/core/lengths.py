"""How long answers are: their survival curve by model, class and tenant, in bounded tables.

Answers that still run are counted as far as they have come (Kaplan and Meier, 1958). Counting only those that ended would at
first believe all answers to be short, as short ones end first. Lengths are kept in bins of a quarter octave; what is seen fades.
"""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[str, ...]
"""Model, class, tenant; each prefix of it is a table of its own to fall back on."""

OCTAVES = 21
BINS = 4 * OCTAVES
MOST = 1 << (OCTAVES - 1)
ENOUGH = 16
"""With fewer answers seen a longer prefix of the key tells more."""
KEYS = 4_096
KEY = 3
"""Parts of a whole key."""
SEVERAL = 3
"""With fewer tenants known none is in the middle."""
STALE = 256
"""Which tenant is in the middle is looked up anew after so many answers."""
HALVED_AFTER = 1_024.0
TAIL = 0.16
"""Share of answers that end in each bin beyond what was seen: half of them in an octave."""
AHEAD = (0, 64, 192, 512, 1_024, 2_048, 4_096)
"""Tokens from now at which the use of memory is looked at."""


def bin_of(tokens: int) -> int:
    """Bins of one token at first, then four an octave."""
    if tokens >= MOST:
        return BINS - 1
    bits = tokens.bit_length()
    return tokens if bits < 3 else 4 * bits - 8 + ((tokens >> (bits - 3)) & 3)


def start_of(bin: int) -> int:
    octave, quarter = divmod(bin, 4)
    return bin if bin < 4 else (4 + quarter) << (octave - 1)


STARTS = tuple(start_of(bin) for bin in range(BINS + 1))


class Survival:
    """The share of answers that are longer than so many tokens."""

    __slots__ = ("_at", "_ended", "_entered", "_left", "_rows", "_seen_then", "batch", "high", "mean", "news", "quantile", "seen")

    def __init__(self, quantile: float, high: int) -> None:
        self.quantile = quantile
        self.mean = 0.0
        self.high = high
        """The quantile, in tokens; both numbers are of the last `settle`."""
        self.seen = 0
        self.news: list[tuple[int, int, bool]] = []
        """Learned and not yet taken in: bins of the tokens before and of all, whether it ended."""
        self.batch = 1
        """Answers to be learned together: more, the more are known."""
        self._entered, self._left, self._ended = [0.0] * BINS, [0.0] * BINS, [0.0] * BINS
        self._at: list[float] = [0.5 ** (start / max(1.0, high / 2.3)) for start in STARTS]
        self._rows: dict[int, tuple[float, ...]] = {}
        self._seen_then = 0

    def learn(self, news: list[tuple[int, int, bool]]) -> None:
        """Answers came from a bin, counted already, to another, and ended there or go on."""
        entered, left, ended = self._entered, self._left, self._ended
        for first, last, over in news:
            entered[first] += 1.0
            left[last] += 1.0
            if over:
                ended[last] += 1.0
        self.seen += len(news)
        if self.seen - self._seen_then >= self.batch:
            self.settle()

    def settle(self) -> None:
        """Take what was learned into the curve."""
        self._seen_then = self.seen
        self.batch = max(1, min(256, self.seen // 4))
        alive, at, risk = 1.0, [], 0.0
        for bin, (entered, left, ended) in enumerate(zip(self._entered, self._left, self._ended, strict=True)):
            at.append(alive)
            # Who came into the bin, or went on counted elsewhere, was in it for half of it.
            exposed = risk + (0.5 * entered if bin else entered) - 0.5 * (left - ended)
            alive *= 1.0 - (min(1.0, ended / exposed) if exposed > 0.5 else TAIL)
            risk = max(0.0, risk + entered - left)
        at.append(alive)
        self._at = at
        self._rows = {}
        self.mean = sum(0.5 * (at[bin] + at[bin + 1]) * (STARTS[bin + 1] - STARTS[bin]) for bin in range(BINS))
        self.high = self.longer(0, 1.0 - self.quantile)
        if sum(self._left) > HALVED_AFTER:
            for counts in (self._entered, self._left, self._ended):
                counts[:] = [count * 0.5 for count in counts]

    def over(self, tokens: int) -> float:
        """The share of answers longer than `tokens`."""
        bin = bin_of(tokens)
        start, end = STARTS[bin], STARTS[bin + 1]
        here, there = self._at[bin], self._at[bin + 1]
        return here if tokens >= MOST else here - (here - there) * (tokens - start) / (end - start)

    def longer(self, tokens: int, share: float) -> int:
        """The length that `share` of the answers longer than `tokens` exceed."""
        aim = share * self.over(tokens)
        for bin in range(bin_of(tokens), BINS):
            here, there = self._at[bin], self._at[bin + 1]
            if there <= aim:
                part = (here - aim) / (here - there) if here > there else 0.0
                return max(tokens, int(STARTS[bin] + part * (STARTS[bin + 1] - STARTS[bin]))) + 1
        return MOST

    def ahead(self, tokens: int) -> tuple[float, ...]:
        """Of the answers longer than about `tokens`, the shares that go on for more than each of `AHEAD`."""
        bin = bin_of(tokens)
        row = self._rows.get(bin)
        if row is None:
            start = STARTS[bin]
            known = self.over(start)
            row = self._rows[bin] = tuple(self.over(start + more) / known if known > 0.0 else 0.0 for more in AHEAD)
        return row


class Lengths:
    """Survival curves by key, the least recently learned dropped beyond `KEYS`."""

    __slots__ = ("_learned", "_typical", "known", "quantile", "start")

    def __init__(self, start: int = 256, quantile: float = 0.8) -> None:
        self.quantile = quantile
        self.start = Survival(quantile, start)
        self.known: OrderedDict[Key, Survival] = OrderedDict()
        self._learned = 0
        """Answers, ended or not, that were learned from."""
        self._typical: dict[Key, tuple[int, Survival | None]] = {}
        """By all of a key but its tenant: the tenant's in the middle, and how many answers had been learned from then."""

    def find(self, key: Key) -> Survival:
        """What is known for the key; for a tenant not known yet, of the tenant in the middle of those that are; else for the
        longest prefix of the key that enough answers were seen of.
        """
        known = self.known
        found = known.get(key)
        if found is not None and found.seen >= ENOUGH:
            return found
        typical = self.typical(key[:-1]) if len(key) == KEY else None
        if typical is not None:
            return typical
        for cut in range(len(key), 0, -1):
            found = known.get(key[:cut])
            if found is not None and found.seen >= ENOUGH:
                return found
        return known.get(key[:1], self.start)

    def typical(self, task: Key) -> Survival | None:
        """Of the tenants known for a model and class, the one whose mean is in the middle; None while there are few.

        All answers together would tell of the tenant that asks most. A new one is like any other.
        """
        at, found = self._typical.get(task, (-STALE, None))
        if self._learned - at >= STALE:
            tenants = [one for key, one in self.known.items() if len(key) == KEY and key[:-1] == task and one.seen >= ENOUGH]
            found = sorted(tenants, key=_mean)[len(tenants) // 2] if len(tenants) >= SEVERAL else None
            if len(self._typical) > KEYS:
                self._typical.clear()
            self._typical[task] = self._learned, found
        return found

    def learn(self, key: Key, tokens: int, ended: bool = True, before: int = 0) -> None:
        """An answer came from `before` tokens, which were counted already, to `tokens`, and ended there or goes on."""
        self._learned += 1
        found = self.known.get(key)
        if found is None:
            found = self._make(key)
        news = found.news
        news.append((bin_of(before) if before else 0, bin_of(tokens), ended))
        if len(news) >= found.batch:
            found.news = []
            for end in range(1, len(key) + 1):
                part = key[:end]
                (self.known.get(part) or self._make(part)).learn(news)
                self.known.move_to_end(part)

    def _make(self, key: Key) -> Survival:
        made = self.known[key] = Survival(self.quantile, self.start.high)
        if len(self.known) > KEYS:
            self.known.popitem(last=False)
        return made

    def mean(self, key: Key, max_tokens: int) -> float:
        return capped(self.find(key).mean, max_tokens)

    def high(self, key: Key, max_tokens: int) -> int:
        return int(capped(self.find(key).high, max_tokens))


def _mean(known: Survival) -> float:
    return known.mean


def capped(tokens: float, max_tokens: int) -> float:
    return min(tokens, max_tokens) if max_tokens else tokens
