"""The admin side on a real socket, inside a running event loop."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from penstock.admin import server
from penstock.config import Class, Config, Listen, Node, Tls
from penstock.core import Core
from penstock.errors import ConfigError
from penstock.events import Arrived, Cancelled, Event, Finished, FirstToken, NodeSeen, Progress
from penstock.facts import Host, KeyUse, Request, Signals, Snapshot, WindowUse
from penstock.knobs import Knobs
from penstock.metrics.catalog import CATALOG
from penstock.metrics.ledger import Ledger

ANY_PORT = Listen(port=0)
Answer = tuple[int, dict[str, str], bytes]


class Source:
    """A core and its books, as a gateway has them."""

    def __init__(self, **config: Any) -> None:
        nodes = tuple(Node(name=name, url=f"http://{name}", models=("m",), max_running=1) for name in ("a", "b"))
        self.config = Config(**{"nodes": nodes, "classes": (Class(name="gold", ttft_ms=2_000),), "admin": ANY_PORT, **config})
        self.core = Core(self.config, Knobs(), random.Random(1))
        self.ledger = Ledger(self.config, self.core.task_class)

    def snapshot(self) -> Snapshot:
        return self.core.snapshot(10.0)

    def host(self) -> Host:
        return Host(connections=3, http_refusals={"bad_host": 2}, journal="failed: disk full")

    def key_use(self) -> tuple[KeyUse, ...]:
        window = WindowUse(limit="tokens", window_s=60.0, most=1_000, used=250, reset_s=12.5)
        desk = KeyUse(
            name="desk", requests=4, prompt_tokens=36, cached_tokens=9, output_tokens=12, cost=0.5, running=1, concurrency=3,
            refused={"tokens": 2}, windows=(window,),
        )  # fmt: skip
        return (desk,)

    def live_through(self, requests: int) -> None:
        events: list[Event] = [NodeSeen("a", Signals(running=1, waiting=0, kv_usage=0.25)), Progress("a", 50, 1.0)]
        for id in range(requests):
            request = Request(id, "m", tenant='a "b"\n\\', stream=True, prompt_tokens=20)
            events += [Arrived(request), FirstToken(id), Finished(id, output_tokens=9) if id % 2 else Cancelled(id)]
        events.append(Arrived(Request(requests, "m")))
        for at, event in enumerate(events):
            self.ledger.observe(event, self.core.handle(event, at / 100), at / 100)


def serve(source: Source, ask: Callable[[server.AdminServer], Awaitable[None]], **environment: str) -> None:
    async def run() -> None:
        running = await server.start(source, environment)
        try:
            await ask(running)
        finally:
            await running.stop()

    uvloop.run(run())


async def get(running: server.AdminServer, path: str, method: str = "GET", **headers: str) -> Answer:
    def ask() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


def test_state_shows_nodes_queues_classes_and_knobs() -> None:
    source = Source()
    source.live_through(6)
    jobs = source.ledger.jobs
    jobs.queued, jobs.running, jobs.retries, jobs.ended["failed"] = 4, 2, 3, 7

    async def ask(running: server.AdminServer) -> None:
        status, headers, body = await get(running, "/admin/state")
        assert (status, headers["content-type"]) == (200, "application/json")
        state = json.loads(body)
        assert [node["name"] for node in state["nodes"]] == ["a", "b"]
        assert state["nodes"][0]["reported"] == {"running": 1, "waiting": 0, "kv_usage": 0.25}
        assert state["queues"][0]["model"] == "m"
        assert state["classes"]["gold"]["ended"] == {"completed": 3, "cancelled": 3}
        assert state["knobs"]["queue_max"] == 5_000
        assert state["uptime_s"] >= 0
        assert (state["connections"], state["http_refusals"], state["journal"]) == (3, {"bad_host": 2}, "failed: disk full")
        assert state["tickets"] == {
            "queued": 4,
            "running": 2,
            "ended": {"completed": 0, "failed": 7, "cancelled": 0, "expired": 0},
            "retries": 3,
        }
        assert state["version"]

    serve(source, ask)


def test_keys_are_shown_with_what_they_used_and_have_left() -> None:
    async def ask(running: server.AdminServer) -> None:
        status, _, body = await get(running, "/admin/keys")
        assert status == 200
        [desk] = json.loads(body)["keys"]
        assert (desk["name"], desk["requests"], desk["cost"], desk["refused"]) == ("desk", 4, 0.5, {"tokens": 2})
        assert desk["windows"] == [{"limit": "tokens", "window_s": 60.0, "most": 1_000, "used": 250, "reset_s": 12.5}]

    serve(Source(), ask)


def test_metrics_page_holds_every_metric_and_promtool_accepts_it() -> None:
    source = Source()
    source.live_through(6)
    source.ledger.turn_away("invalid_json")
    pages = []

    async def ask(running: server.AdminServer) -> None:
        status, headers, body = await get(running, "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        pages.append(body)

    serve(source, ask)
    text = pages[0].decode()
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")} == set(CATALOG)
    assert 'penstock_requests_total{class="gold",outcome="completed"} 3.0' in text
    assert 'penstock_time_to_first_token_seconds_bucket{class="gold",le="+Inf"} 6.0' in text
    assert 'penstock_http_refusals_total{code="bad_host"} 2.0' in text
    assert "penstock_journal_failed 1.0" in text
    assert 'penstock_key_tokens_total{key="desk",kind="cached"} 9.0' in text
    assert 'penstock_key_limit_used_ratio{key="desk",limit="tokens",window_s="60"} 0.25' in text
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing; the page was not checked by it")
    checked = subprocess.run([promtool, "check", "metrics"], input=pages[0], capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics_is_served_to_those_who_prefer_it() -> None:
    async def ask(running: server.AdminServer) -> None:
        _, headers, body = await get(running, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")

    serve(Source(), ask)


def test_every_answer_carries_the_security_headers() -> None:
    async def ask(running: server.AdminServer) -> None:
        for path, expected in (("/health", 200), ("/admin/state", 200), ("/admin/keys", 200), ("/nowhere", 404)):
            status, headers, _ = await get(running, path)
            assert status == expected
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers

    serve(Source(), ask)


def test_unknown_paths_and_methods_are_json_errors() -> None:
    async def ask(running: server.AdminServer) -> None:
        for path, method, expected in (("/nowhere", "GET", 404), ("/admin/state", "POST", 405), ("/metrics", "DELETE", 405)):
            status, headers, body = await get(running, path, method)
            assert (status, headers["content-type"]) == (expected, "application/json")
            assert json.loads(body)["error"]["message"]

    serve(Source(), ask)


def test_failure_inside_is_a_json_error_that_tells_nothing() -> None:
    class Broken(Source):
        def snapshot(self) -> Snapshot:
            raise RuntimeError("secret")

    async def ask(running: server.AdminServer) -> None:
        status, headers, body = await get(running, "/admin/state")
        assert status == 500
        assert headers["x-content-type-options"] == "nosniff"
        assert json.loads(body)["error"]["code"] == "internal_error"
        assert b"secret" not in body

    serve(Broken(), ask)


def test_key_is_asked_for_everywhere_but_health() -> None:
    async def ask(running: server.AdminServer) -> None:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "hunter2"}, {"Authorization": "Basic hunter2"}):
            for path in ("/metrics", "/admin/state", "/admin/keys", "/nowhere"):
                status, headers, body = await get(running, path, **given)
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
                assert b"hunter2" not in body
        assert (await get(running, "/health"))[0] == 200
        assert (await get(running, "/metrics", Authorization="bearer hunter2"))[0] == 200

    serve(Source(admin_key_env="ADMIN_KEY"), ask, ADMIN_KEY="hunter2")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.", "", "[::2]", "user@localhost"]
)
def test_names_of_elsewhere_are_refused(host: str) -> None:
    async def ask(running: server.AdminServer) -> None:
        for path in ("/metrics", "/admin/state", "/admin/keys", "/health"):
            assert (await get(running, path, Host=host))[0] == 403

    serve(Source(), ask)


def test_loopbacks_own_names_are_served() -> None:
    async def ask(running: server.AdminServer) -> None:
        for host in ("localhost", "LOCALHOST:8081", "127.0.0.1", "[::1]:9", "[::1]", f"127.0.0.1:{running.port}"):
            assert (await get(running, "/health", Host=host))[0] == 200

    serve(Source(), ask)


def test_configured_names_take_the_defaults_place() -> None:
    async def ask(running: server.AdminServer) -> None:
        assert (await get(running, "/health", Host="Admin.example:443"))[0] == 200
        assert (await get(running, "/health", Host="localhost"))[0] == 403

    serve(Source(admin=Listen(port=0, hosts=("admin.example",))), ask)


def test_pages_of_other_origins_are_refused() -> None:
    async def ask(running: server.AdminServer) -> None:
        own = f"http://127.0.0.1:{running.port}"
        for origin in (own, "https://ops.example"):
            assert (await get(running, "/admin/state", Origin=origin))[0] == 200
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", ""):
            assert (await get(running, "/admin/state", Origin=origin))[0] == 403

    serve(Source(admin=Listen(port=0, cors=("https://ops.example",))), ask)


def test_tls_is_served(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing; no certificate can be made")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-days", "1", "-out", cert, "-keyout", key]
    subprocess.run(make, check=True, capture_output=True)

    async def ask(running: server.AdminServer) -> None:
        def read() -> int:
            trust = ssl.create_default_context(cafile=cert)
            connection = http.client.HTTPSConnection("localhost", running.port, timeout=10, context=trust)
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status
            finally:
                connection.close()

        assert running.url.startswith("https://")
        assert await asyncio.to_thread(read) == 200

    serve(Source(admin=Listen(port=0, tls=Tls(cert=cert, key=key))), ask)


def test_certificate_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    tls = Tls(cert=str(tmp_path / "none.pem"), key=str(tmp_path / "none.key"))
    with pytest.raises(ConfigError, match="certificate"):
        uvloop.run(server.start(Source(admin=Listen(port=0, tls=tls)), {}))


def test_port_that_is_taken_is_a_config_error() -> None:
    async def ask(running: server.AdminServer) -> None:
        with pytest.raises(ConfigError, match="cannot listen"):
            await server.start(Source(admin=Listen(port=running.port)), {})

    serve(Source(), ask)


def test_listener_that_others_can_reach_needs_a_key() -> None:
    exposed = Source(admin=Listen(host="0.0.0.0", port=0))
    with pytest.raises(ConfigError, match="set admin_key_env"):
        uvloop.run(server.start(exposed, {}))


def test_key_that_is_not_set_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="ADMIN_KEY is not set"):
        uvloop.run(server.start(Source(admin_key_env="ADMIN_KEY"), {}))


def test_listener_elsewhere_serves_any_name_to_holders_of_the_key() -> None:
    async def ask(running: server.AdminServer) -> None:
        assert (await get(running, "/metrics", Host="gateway.internal"))[0] == 401
        assert (await get(running, "/metrics", Host="gateway.internal", Authorization="Bearer k"))[0] == 200

    serve(Source(admin=Listen(host="0.0.0.0", port=0), admin_key_env="ADMIN_KEY"), ask, ADMIN_KEY="k")


def test_signal_handlers_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def ask(running: server.AdminServer) -> None:
        await get(running, "/health")

    serve(Source(), ask)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_stopping_closes_the_port() -> None:
    ports = []

    async def ask(running: server.AdminServer) -> None:
        ports.append(running.port)

    serve(Source(), ask)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), timeout=5).close()


def test_importing_the_server_imports_no_web_library() -> None:
    code = (
        "import sys, penstock.admin.server; print([name for name in ('starlette', 'uvicorn', 'prometheus_client') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
