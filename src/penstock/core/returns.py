"""Returns that were promised: when refused callers were told to come back, and who of those that come now is one of them.

A refusal books the next free time at the rate at which its class is served, so that a refused crowd comes back as fast as the fleet
takes it, and not at once. Promises are kept as counts in bins of time, by tenant and class: who returns needs no name. One that comes
when a promise is due takes it, and has a claim on room over who comes for the first time. Callers that do not come back show too: the
share that does says how much room is kept for them.
"""

from __future__ import annotations

from random import Random

BIN_S = 0.25
EARLY_S, LATE_S = 0.5, 3.0
"""Around its promise a return is on time from so much before to so much after."""
MOST_S = 118.0
"""Later than this nothing is promised: official clients honour Retry-After up to 120 s."""
SHARE = 0.8
"""Of the rate at which its class is served, what is promised."""
SHOW_LEAST = 0.25
"""Not more than four promises are made for the room of one, however few come back."""
SHOW_FIRST, SHOW_STEP = 1.0, 0.02
CAME_STEP = 0.1
"""A few returns are enough to keep room for more: before any came, none is kept."""
BOOKS = 1_024
"""Tenants and classes kept apart."""

Key = tuple[str, str]


class Book:
    """The promises to one tenant's requests of one class."""

    __slots__ = ("bins", "came", "due", "first", "next_at", "show")

    def __init__(self) -> None:
        self.bins: dict[int, int] = {}
        self.due = 0
        """Promises not yet kept, nor given up."""
        self.first = 0
        """The earliest bin that may hold any."""
        self.next_at = 0.0
        self.show = SHOW_FIRST
        """Running share of promises that were taken up, for the pace of promises: whoever is told to come may."""
        self.came = 0.0
        """The same for the room that is kept: nobody comes until somebody did."""

    def promise(self, at: float) -> None:
        bin = int(at / BIN_S)
        if not self.due:
            self.first = bin
        self.bins[bin] = self.bins.get(bin, 0) + 1
        self.due += 1
        self.first = min(self.first, bin)

    def lapse(self, now: float) -> None:
        """Give up what is overdue."""
        last = int((now - LATE_S) / BIN_S)
        while self.due and self.first < last:
            missed = self.bins.pop(self.first, 0)
            if missed:
                self.due -= missed
                lapsed = (1 - SHOW_STEP) ** missed
                self.show *= lapsed
                self.came *= lapsed
            self.first += 1

    def take(self, now: float, told: bool = True) -> bool:
        """Whether a promise is due, which is kept with that. `told`: its caller says that it came before.

        One who does not say may be anybody: under overload there is always somebody, and no room is to be kept for that.
        """
        self.lapse(now)
        if not self.due:
            return False
        for bin in range(self.first, int((now + EARLY_S) / BIN_S) + 1):
            count = self.bins.get(bin, 0)
            if count:
                if count == 1:
                    del self.bins[bin]
                else:
                    self.bins[bin] = count - 1
                self.due -= 1
                self.show += SHOW_STEP * (1 - self.show)
                if not told:
                    self.came *= 1 - SHOW_STEP
                    return True
                self.came += CAME_STEP * (1 - self.came)
                return True
        return False


class Returns:
    """One model's books. The tables are bounded: beyond `BOOKS` nothing is promised, and callers are told to come back at random."""

    __slots__ = ("books", "every")

    def __init__(self) -> None:
        self.books: dict[Key, Book] = {}
        self.every = Book()
        """All of them in one."""

    def refuse(self, key: Key, least_s: float, rate: float, now: float, rng: Random) -> float:
        """Seconds after which to come back, `least_s` at the least; `rate` is that at which requests like it are served."""
        book = self._book(key, now)
        if book is None or rate <= 0:
            return min(MOST_S, least_s * (1 + rng.random()))
        book.lapse(now)
        gap_s = max(book.show, SHOW_LEAST) / (SHARE * rate)
        at = max(book.next_at, now + least_s)
        wait_s = at - now + gap_s * rng.random()
        if wait_s > MOST_S:
            # All that can be promised is. Who comes after the last promise finds what room there is.
            return MOST_S * (0.5 + 0.5 * rng.random())
        book.next_at = at + gap_s
        book.promise(now + wait_s)
        self.every.promise(now + wait_s)
        return wait_s

    def take(self, key: Key, now: float, told: bool = True) -> bool:
        """A request came that may be a return, and is one if `told`: whether it is one on time."""
        book = self.books.get(key)
        if book is None or not book.take(now, told):
            return False
        self.every.take(now, told)
        return True

    def expected(self, now: float) -> float:
        """Share of what is promised that will come; 0 when nothing is promised."""
        every = self.every
        if not every.due:
            return 0.0
        every.lapse(now)
        return every.came if every.due else 0.0

    def _book(self, key: Key, now: float) -> Book | None:
        book = self.books.get(key)
        if book is None:
            if len(self.books) >= BOOKS:
                self._clear(now)
                if len(self.books) >= BOOKS:
                    return None
            book = self.books[key] = Book()
        return book

    def _clear(self, now: float) -> None:
        """Let go of books in which nothing is promised."""
        for key, book in list(self.books.items()):
            book.lapse(now)
            if not book.due:
                del self.books[key]
