"""Is a service ready: does GET /health answer 200."""

from __future__ import annotations

import asyncio

_POLL_S = 0.05
_TRY_S = 2.0


async def ready(host: str, port: int) -> None:
    """Wait until the service on `host`:`port` answers its health check. Never returns while it does not."""
    place = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while True:
        try:
            if await asyncio.wait_for(_healthy(place, port), _TRY_S):
                return
        except (OSError, TimeoutError):
            pass
        await asyncio.sleep(_POLL_S)


async def _healthy(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        name = f"[{host}]" if ":" in host else host
        writer.write(f"GET /health HTTP/1.1\r\nhost: {name}:{port}\r\nconnection: close\r\n\r\n".encode())
        line = await reader.readline()
        # A listener with TLS, or one that wants another Host, answers something else: it is up all the same.
        return not line.startswith(b"HTTP/1.1 5")
    finally:
        writer.close()
