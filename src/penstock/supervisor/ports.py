"""Ports that are taken are named before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from penstock.errors import PenstockError


def refuse_taken(places: Iterable[tuple[str, str, int, str]]) -> None:
    """Raise PenstockError for the first (what, host, port, option) that something listens on already, or that comes twice."""
    ours: dict[int, str] = {}
    for what, host, port, option in places:
        if port == 0:
            continue
        if not 0 < port < 65_536:
            raise PenstockError(f"{what}: {port} is not a port; choose another with {option}")
        if port in ours:
            raise PenstockError(f"{what}: port {port} is for {ours[port]}; choose another with {option}")
        ours[port] = what
        _try_to_listen(what, host, port, option)


def _try_to_listen(what: str, host: str, port: int, option: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PenstockError(f"{what}: cannot listen on {host}:{port} ({error.strerror}); choose another port with {option}") from None
