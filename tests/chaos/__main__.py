"""`make chaos`: kill the gateway at random moments with tickets in flight. Exit code 1 if a ticket is lost or ends twice."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import Storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how often (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of the callers (default: 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
        storm = Storm(Path(folder), options.kills, options.seed)
        asyncio.run(storm.rage())
        print(storm.report(), end="")
    return 1 if storm.found else 0


if __name__ == "__main__":
    sys.exit(main())
