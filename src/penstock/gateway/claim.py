"""Who must know how a call ended: limits settle what it reserved, repeats learn whether its answer may be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from penstock.events import Finished, Reject

if TYPE_CHECKING:
    from penstock.gateway.call import Call


class Claim(Protocol):
    def end(self, call: Call, event: Finished | Reject | None) -> None:
        """The call ended: with an answer, with a refusal that has yet to be sent, or None when its caller left. Called once."""
