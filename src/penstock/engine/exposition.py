"""An engine's state as vLLM tells it: the names and buckets of vLLM's /metrics (V1 engine).

Law: pure.
"""

from __future__ import annotations

from bisect import bisect_left

TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0)
ITL_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)


class Buckets:
    """A Prometheus histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0.0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight


class Page:
    """Text of one scrape; every sample carries the model's name."""

    def __init__(self, model: str) -> None:
        escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._label = f'model_name="{escaped}"'
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, value: float) -> None:
        self._sample(name, text, "gauge", value)

    def counter(self, name: str, text: str, value: float) -> None:
        self._sample(f"{name}_total", text, "counter", value)

    def finished(self, counts: dict[str, int]) -> None:
        self._head("vllm:request_success_total", "Count of successfully processed requests.", "counter")
        self._lines += [
            f'vllm:request_success_total{{finished_reason="{reason}",{self._label}}} {count}' for reason, count in counts.items()
        ]

    def histogram(self, name: str, text: str, buckets: Buckets) -> None:
        self._head(name, text, "histogram")
        seen = 0.0
        for bound, count in zip((*map(str, buckets.bounds), "+Inf"), buckets.counts, strict=True):
            seen += count
            self._lines.append(f'{name}_bucket{{le="{bound}",{self._label}}} {seen}')
        self._lines.append(f"{name}_count{{{self._label}}} {seen}")
        self._lines.append(f"{name}_sum{{{self._label}}} {buckets.total}")

    def bytes(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()

    def _sample(self, name: str, text: str, kind: str, value: float) -> None:
        self._head(name, text, kind)
        self._lines.append(f"{name}{{{self._label}}} {value}")

    def _head(self, name: str, text: str, kind: str) -> None:
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
