"""What was used within a sliding window, exactly enough and in bounded memory.

Uses closer to each other than 1/128 of the window are kept as one, and leave it together with the last of them. So no window of that
length ever holds more than the limit, and a limit that is always taken in full yields at least 128/129 of it.
"""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from math import inf

SLOTS = 128


class Slot:
    """Uses that leave the window together."""

    __slots__ = ("amount", "first", "gone", "last")

    def __init__(self, amount: int, now: float) -> None:
        self.amount = amount
        self.first = self.last = now
        self.gone = False


class Window:
    """`limit` in any `length_s` seconds. Amounts are integers, so that what is given back leaves exactly nothing."""

    __slots__ = ("_slots", "_step_s", "_used", "length_s", "limit")

    def __init__(self, limit: int, length_s: float) -> None:
        self.limit, self.length_s = limit, length_s
        self._step_s = length_s / SLOTS
        self._slots: deque[Slot] = deque()
        self._used = 0

    def used(self, now: float) -> int:
        slots, since = self._slots, now - self.length_s
        while slots and slots[0].last <= since:
            slot = slots.popleft()
            slot.gone = True
            self._used -= slot.amount
        return self._used

    def take(self, amount: int, now: float) -> Slot | None:
        """Use `amount` now if it has room; the slot takes back what proves unused."""
        slots = self._slots
        if slots and slots[0].last <= now - self.length_s:
            self.used(now)
        return None if self._used + amount > self.limit else self.add(amount, now)

    def add(self, amount: int, now: float) -> Slot:
        """Use `amount` now, whether there is room or not."""
        slots = self._slots
        slot = slots[-1] if slots else None
        if slot is None or now - slot.first >= self._step_s:
            slot = Slot(amount, now)
            slots.append(slot)
        else:
            slot.amount += amount
            slot.last = now
        self._used += amount
        return slot

    def give_back(self, slot: Slot, amount: int) -> None:
        """`amount` of what was added to `slot` was not used after all; nothing when it has left the window."""
        if not slot.gone:
            slot.amount -= amount
            self._used -= amount

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds until `amount` has room if nothing is given back; infinite when it is more than the limit."""
        if amount > self.limit:
            return inf
        over = self.used(now) + amount - self.limit
        if over <= 0:
            return 0.0
        freed = accumulate(slot.amount for slot in self._slots)
        last = next(slot.last for slot, amount in zip(self._slots, freed, strict=True) if amount >= over)
        return last + self.length_s - now

    def reset_s(self, now: float) -> float:
        """Seconds until nothing is used; exactly the window's length when the last use was `now`."""
        if not self.used(now):
            return 0.0
        last = next(slot.last for slot in reversed(self._slots) if slot.amount)
        return self.length_s - (now - last)
