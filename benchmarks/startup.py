"""How long the gateway takes from its start to its first answer, and what it weighs idle."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.process import PENSTOCK, CannotStart, Process, accepts, free_ports, resident_mb
from benchmarks.row import Row, main

STARTS = 5


def start_once(folder: Path) -> tuple[float, float]:
    """Seconds until it listens, and MB once it has been idle for two seconds."""
    port, admin = free_ports(2)
    path = folder / "gateway.yaml"
    path.write_text(
        f"listen: {{port: {port}}}\nadmin: {{port: {admin}}}\nnodes:\n  - {{name: one, url: 'http://127.0.0.1:9', models: [m]}}\n"
    )
    began = time.monotonic()
    with Process((*PENSTOCK, "gateway", "--config", str(path)), folder / "gateway.log") as process:
        process.listening(port)
        took = time.monotonic() - began
        until = began + 10
        while not accepts(admin) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(2.0)
        return took, resident_mb(process.pid)


def measure() -> list[Row]:
    seen: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="penstock-startup-") as name:
        try:
            seen = [start_once(Path(name)) for _ in range(STARTS)]
        except CannotStart as error:
            return [Row("gateway listens after", None, note=str(error)[-160:].replace("\n", " "))]
    return [
        Row("gateway listens after", median(took for took, _ in seen), "s", at_most=0.7),
        Row("gateway idle memory", median(size for _, size in seen), "MB", at_most=60),
    ]


if __name__ == "__main__":
    main(measure)
