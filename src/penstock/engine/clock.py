"""An engine's time: real time, run faster or slower."""

from __future__ import annotations

from time import monotonic


class Clock:
    """Model seconds since its creation; `rate` of them pass in a real second."""

    __slots__ = ("_model", "_real", "rate")

    def __init__(self, rate: float) -> None:
        self._real, self._model, self.rate = monotonic(), 0.0, rate

    def now(self) -> float:
        return self._model + (monotonic() - self._real) * self.rate

    def delay_s(self, at: float) -> float:
        """Real seconds until the model's time is `at`."""
        return max(0.0, (at - self._model) / self.rate - (monotonic() - self._real))

    def set_rate(self, rate: float) -> None:
        real = monotonic()
        self._model += (real - self._real) * self.rate
        self._real, self.rate = real, rate
