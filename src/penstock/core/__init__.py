"""The scheduler: classify, admit, queue, route, fleet. Pure: it reads no clock, socket, log or unseeded randomness.

`Core.handle(event, now)` returns the actions to take; `Core.deadline` says when to send the next `Tick`.
"""

from penstock.core.core import Core

__all__ = ["Core"]
