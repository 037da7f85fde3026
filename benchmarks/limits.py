"""What limits of a key and an `Idempotency-Key` add to a request: CPU of the gateway's process, all in one run with nginx as a bare proxy.

A head that differs from request to request costs a parse, whatever differs in it; so a new `Idempotency-Key` for each request is shown
beside another header that is new each time.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import cost
from benchmarks.process import PENSTOCK, CannotStart, Process, free_ports
from benchmarks.row import Row, main

ROUNDS = 3
DIGEST = hashlib.sha256(cost.KEY.encode()).hexdigest()
PLAIN = f"keys: [{{name: bench, sha256: {DIGEST}}}]"
LIMITED = (
    "prices: {'*': {input_per_1m: 0.1, output_per_1m: 1}}\n"
    f"keys:\n  - name: bench\n    sha256: {DIGEST}\n    concurrency: 1000\n"
    "    limits: [{requests: 1000000000}, {tokens: 1000000000000}, {cost: 1000000000}]"
)
NEW_HEADER = (
    'local n, t = 0, os.time()\nwrk.headers["Host"]="gateway"\nrequest = function()\n  n = n + 1\n'
    '  wrk.headers["%s"] = "stainless-python-retry-" .. t .. "-" .. n\n  return wrk.format()\nend\n'
)


def gateway(folder: Path, name: str, keys: str, port: int, admin_port: int, ports: list[int]) -> Process:
    nodes = "\n".join(f"  - {{name: node{index}, url: 'http://127.0.0.1:{one}', models: [demo]}}" for index, one in enumerate(ports))
    config = folder / f"{name}.yaml"
    config.write_text(f"listen: {port}\nadmin: {admin_port}\n{keys}\nnodes:\n{nodes}\nclasses: [{{name: usual, ttft_ms: 20000}}]\n")
    return Process((*PENSTOCK, "gateway", "--config", str(config)), folder / f"{name}.log")


@contextmanager
def cases(folder: Path) -> Iterator[dict[str, tuple[cost.Peer, Path]]]:
    proxied, plain, limited, first_admin, second_admin, *ports = free_ports(5 + cost.NODES)
    same = cost.script(folder, "same", 300, stream=False)
    scripts = {"same": same}
    for header in ("X-Trace", "Idempotency-Key"):
        scripts[header] = folder / f"{header}.lua"
        scripts[header].write_text(same.read_text() + NEW_HEADER % header)
    with (
        cost.engine(folder, ports).listening(ports[-1]),
        cost.proxy(folder, proxied, ports) as nginx,
        gateway(folder, "plain", PLAIN, plain, first_admin, ports) as one,
        gateway(folder, "limited", LIMITED, limited, second_admin, ports) as other,
    ):
        peers = [
            cost.Peer("nginx", proxied, nginx.listening(proxied)),
            cost.Peer("plain", plain, one.listening(plain)),
            cost.Peer("limited", limited, other.listening(limited)),
        ]
        time.sleep(2.0)
        yield {
            "nginx": (peers[0], same),
            "a key without limits": (peers[1], same),
            "a key with three limits and concurrency": (peers[2], same),
            "a header that is new each time": (peers[1], scripts["X-Trace"]),
            "an Idempotency-Key that is new each time": (peers[1], scripts["Idempotency-Key"]),
        }


def measure() -> list[Row]:
    if missing := [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]:
        return [Row("CPU of limits and repeats", None, note=f"{' and '.join(missing)} not installed")]
    seen: dict[str, list[float]] = {}
    refused: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="penstock-limits-") as folder:
        try:
            with cases(Path(folder)) as measured:
                for _ in range(ROUNDS):
                    for name, (peer, path) in measured.items():
                        us, bad = cost.cost_us(peer, path, cost.CONNECTIONS)
                        seen.setdefault(name, []).append(us)
                        refused |= {name} if bad else set()
        except CannotStart as error:
            return [Row("CPU of limits and repeats", None, note=str(error))]
    notes = [Row(f"note: answers that were not 2xx: {name}", None) for name in sorted(refused)]
    return [*(Row(f"request of 300 B: {name}", median(costs), "us CPU") for name, costs in seen.items()), *notes]


if __name__ == "__main__":
    main(measure)
