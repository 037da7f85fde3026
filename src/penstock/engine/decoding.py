"""The runs that get one token a step, kept as sums so that a step costs the same for one and for hundreds."""

from __future__ import annotations

from heapq import heappop, heappush

from penstock.engine.sequence import Run


class Decoding:
    __slots__ = ("_ends", "_phase", "context", "count")

    def __init__(self, page_tokens: int) -> None:
        self.count = 0
        self.context = 0
        """Summed context of the runs in the next step."""
        self._phase = [0] * page_tokens
        """Runs that take a new page in the steps whose number modulo the page size is the index."""
        self._ends: list[tuple[int, int, Run]] = []
        """Heap of (step count at which a run's last token is out, serial, run)."""

    def add(self, run: Run, end: int) -> None:
        """A run whose first token is out (`run.began`), and whose last will be when `end` steps are done."""
        self.count += 1
        self.context += run.total + 1
        self._phase[(run.began + 1 - run.total) % len(self._phase)] += 1
        heappush(self._ends, (end, run.serial, run))

    def remove(self, run: Run, steps: int) -> None:
        """`steps` are done."""
        self.count -= 1
        self.context -= run.total + 1 + steps - run.began
        self._phase[(run.began + 1 - run.total) % len(self._phase)] -= 1

    def ended(self, steps: int) -> list[Run]:
        """Runs whose last token is out, to be removed; oldest first."""
        ends, found = self._ends, []
        while ends and ends[0][0] <= steps:
            run = heappop(ends)[2]
            if not run.gone:
                found.append(run)
        return found

    def steps_to_end(self, steps: int) -> int:
        """Steps until the next run ends; 0 when there is none."""
        ends = self._ends
        while ends and ends[0][2].gone:
            heappop(ends)
        return ends[0][0] - steps if ends else 0

    def next_pages(self, steps: int) -> int:
        """Pages that the next step takes."""
        return self._phase[(steps + 1) % len(self._phase)]

    def pages(self, steps: int, ahead: int) -> int:
        """Pages that the next `ahead` steps take."""
        if not ahead or not self.count:
            return 0
        phase, size = self._phase, len(self._phase)
        if ahead == 1:
            return phase[(steps + 1) % size]
        cycles, rest = divmod(ahead, size)
        return cycles * self.count + sum([phase[step % size] for step in range(steps + 1, steps + 1 + rest)])

    def steps_with_room(self, steps: int, ahead: int, available: int) -> int:
        """As many of the next `ahead` steps as the available pages allow."""
        phase, size, count = self._phase, len(self._phase), self.count
        if not count or count * (ahead // size + 1) <= available:
            return ahead
        cycles = available // count
        fit, left = cycles * size, available - cycles * count
        while fit < ahead and phase[(steps + fit + 1) % size] <= left:
            left -= phase[(steps + fit + 1) % size]
            fit += 1
        return min(ahead, fit)
