"""What the admin side needs of a gateway."""

from __future__ import annotations

from typing import Protocol

from penstock.config import Config
from penstock.facts import Host, KeyUse, Snapshot
from penstock.metrics.ledger import Ledger


class Source(Protocol):
    @property
    def config(self) -> Config: ...

    @property
    def ledger(self) -> Ledger: ...

    def snapshot(self) -> Snapshot: ...

    def host(self) -> Host: ...

    def key_use(self) -> tuple[KeyUse, ...]: ...
