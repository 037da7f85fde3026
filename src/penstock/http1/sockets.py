"""Options every TCP connection gets, ours to callers and ours to nodes."""

from __future__ import annotations

import asyncio
import socket

_DEAD_AFTER_S = 30
"""A peer whose machine or network vanished is noticed after about this long, although nothing is being sent."""
_PROBES = 3


def tune(transport: asyncio.Transport) -> None:
    """No delay: a delayed acknowledgement would cost 40 ms (RFC 1122, 4.2.3.2). Keep-alive probes: a vanished peer frees its work."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _DEAD_AFTER_S // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _DEAD_AFTER_S // 2 // _PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
