"""The kinds of policy, as literal tables: name -> class.

Law: a policy is a small class with its parameters and one pure method. It is given views; it changes
nothing.
An outside policy is named `module:Class`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from penstock.errors import ConfigError
from penstock.policy.admit.bounded import Bounded
from penstock.policy.admit.slo import Slo
from penstock.policy.order.deadline import Deadline
from penstock.policy.order.fair import Fair
from penstock.policy.order.fcfs import Fcfs
from penstock.policy.order.value import Value
from penstock.policy.pick.best import Best
from penstock.policy.pick.hash import Hash
from penstock.policy.pick.two import Two
from penstock.policy.rung.cache import Cache
from penstock.policy.rung.sibling import Sibling
from penstock.policy.rung.smaller import Smaller
from penstock.policy.rung.ticket import Ticket
from penstock.policy.rung.wait import Wait
from penstock.policy.score.cost import Cost
from penstock.policy.score.kv_room import KvRoom
from penstock.policy.score.latency import Latency
from penstock.policy.score.locality import Locality
from penstock.policy.score.prefix import Prefix
from penstock.policy.score.queue import Queue
from penstock.policy.score.session import Session
from penstock.policy.views import Admit, Order, Pick, Placer, Rung, Score

ORDER: dict[str, type[Order]] = {"fcfs": Fcfs, "deadline": Deadline, "fair": Fair, "value": Value}
ADMIT: dict[str, type[Admit]] = {"bounded": Bounded, "slo": Slo}
SCORE: dict[str, type[Score]] = {
    "queue": Queue, "kv_room": KvRoom, "prefix": Prefix, "latency": Latency, "session": Session, "locality": Locality, "cost": Cost,
}  # fmt: skip
PICK: dict[str, type[Pick | Placer]] = {"best": Best, "two": Two, "hash": Hash}
RUNG: dict[str, type[Rung]] = {"wait": Wait, "sibling": Sibling, "cache": Cache, "smaller": Smaller, "ticket": Ticket}
"""`reject` is not among them: it is what is left at every ladder's end."""


def find(table: dict[str, type[Any]], name: str, key: str) -> Any:
    """An instance of the policy called `name`. Raises ConfigError naming `key` when there is none."""
    if name in table:
        return table[name]()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"unknown policy {name!r}; known: {', '.join(table)}; or module:Class", key=key)
    try:
        return getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"cannot load policy {name!r}: {error}", key=key) from error
