#!/usr/bin/env python3
"""Writes the pages of docs/ that are generated from the code. `scripts/docs.py --check` only says whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"

CONFIG = """\
# Configuration

One YAML file, for `penstock gateway --config FILE` and `penstock up --config FILE`. Check it with `penstock check FILE`; let an editor
check it with the JSON Schema of `penstock export schema`. An example stands in [examples/penstock.yaml](../examples/penstock.yaml).

Short forms: an address may be a port or `HOST:PORT`, a node its URL; inside `when`, `metadata.order.amount: {gt: 5}` and
`header.x-task: trade*` are fields of `metadata` and `header`; `timeout: {ttft_ms: 500}` stands for the class's own keys. `metadata` is
read only where a rule looks at it, and may then take 16 KiB. A name with dots is a field of that very name, or one inside objects.

Keys can also come from the environment: `PENSTOCK_KEYS=tenant:key,tenant:key`. Files named here are found relative to the configuration.
Generated from the fields of `penstock.config` by `scripts/docs.py`.

"""

METRICS = """\
# Metrics

Served on `/metrics` of the admin listener in Prometheus' text format. Names are final. Labels are bounded: classes, nodes and models
come from the configuration, tenants beyond the first ones are counted as `other`.
Generated from `penstock.metrics.catalog` by `scripts/docs.py`.

| Name | Kind | Labels | |
|---|---|---|---|
"""


def metrics() -> str:
    from penstock.metrics.catalog import CATALOG

    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in CATALOG.values()
    )
    return "".join(row.replace("|  |", "| |") + "\n" for row in rows)


def pages() -> dict[str, str]:
    """File name -> text."""
    from penstock.gateway.schema import reference

    return {"config.md": CONFIG + reference(), "metrics.md": METRICS + metrics()}


def main() -> int:
    """Write the pages, or with --check name those that are out of date."""
    stale = [name for name, text in pages().items() if not (DOCS / name).exists() or (DOCS / name).read_text() != text]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is not current: run scripts/docs.py")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(pages()[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
