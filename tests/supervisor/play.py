"""A process for the supervisor's tests: `serve PORT` is a service, `supervise PORT...` runs some under the real supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import FrameType

from penstock.supervisor import leash
from penstock.supervisor.service import Service
from penstock.supervisor.supervisor import supervise


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/crash":
            os._exit(7)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _serve(port: int, stubborn: bool) -> None:
    leash.fasten()

    def on_term(number: int, frame: FrameType | None) -> None:
        print("asked to stop", flush=True)
        if not stubborn:
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_term)
    with HTTPServer(("127.0.0.1", port), _Health) as server:
        print(f"pid {os.getpid()} serves", flush=True)
        server.serve_forever()


def main() -> None:
    verb, *rest = sys.argv[1:]
    if verb == "refuse":
        print("cannot run like this")
        sys.exit(2)
    if verb == "fail":
        sys.exit(3)
    if verb in ("serve", "stubborn"):
        _serve(int(rest[0]), verb == "stubborn")
        return
    services = []
    for name, entry in zip("abcd", rest, strict=False):
        kind, _, port = entry.partition(":")
        services.append(Service(name, (sys.executable, __file__, kind, port), (("127.0.0.1", int(port)),), stop_s=1.0))
    sys.exit(asyncio.run(supervise(services, lambda: print("all ready", flush=True))))


if __name__ == "__main__":
    main()
