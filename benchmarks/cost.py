"""CPU of the gateway's process for a request and for a streamed chunk, beside nginx as a bare proxy and sglang-router.

All in one run on one machine: nginx answers as every engine, wrk asks, and each proxy's CPU time is read from /proc before and
after. The gateway runs with key check, task classes, prediction, queue, routing over eight nodes and metrics on.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.build import Build, builds
from benchmarks.process import CannotStart, Process, free_ports
from benchmarks.row import Row, main

NODES = 8
KEY = "sk-bench"
SECONDS = 4
ROUNDS = 2
CONNECTIONS, STREAMS = 64, 500
CHUNKS, INTERVAL_S = 50, 0.02
PEERS = Path(__file__).resolve().parent.parent / "build" / "peers"
"""Where sglang-router is installed for the comparison."""
ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"demo","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"Twenty tokens or so of an answer that is always the same, so that only the way costs."},'
    '"finish_reason":"stop"}],"usage":{"prompt_tokens":60,"completion_tokens":20,"total_tokens":80}}'
)
MODELS = '{"object":"list","data":[{"id":"demo","object":"model","created":1,"owned_by":"bench"}],"model_path":"demo"}'


class Peer(NamedTuple):
    name: str
    port: int
    process: Process


def nginx(folder: Path, name: str, servers: str) -> Process:
    """An nginx of one worker, in the foreground, that leaves its files in `folder`."""
    (folder / f"{name}.conf").write_text(
        f"worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err; daemon off;\n"
        "events { worker_connections 8192; }\n"
        "http { access_log off; keepalive_requests 1000000; client_body_buffer_size 64k; client_max_body_size 16m;\n"
        f"client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n"
        f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{servers}\n}}\n"
    )
    return Process(("nginx", "-e", str(folder / f"{name}.err"), "-c", str(folder / f"{name}.conf")), folder / f"{name}.log")


def engine(folder: Path, ports: list[int]) -> Process:
    listens = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
    return nginx(
        folder,
        "engine",
        f"server {{ {listens} default_type application/json;\n"
        f"location /v1/chat/completions {{ return 200 '{ANSWER}'; }}\n"
        f"location ~ ^/(health|metrics)$ {{ return 200 ''; }}\n"
        f"location / {{ return 200 '{MODELS}'; }} }}",
    )


def proxy(folder: Path, port: int, ports: list[int]) -> Process:
    upstreams = " ".join(f"server 127.0.0.1:{one};" for one in ports)
    return nginx(
        folder,
        "proxy",
        f"upstream engines {{ {upstreams} keepalive 512; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://engines; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; proxy_buffering off; } }',
    )


def gateway(folder: Path, build: Build, port: int, admin_port: int, ports: list[int]) -> Process:
    nodes = "\n".join(f"  - {{name: node{index}, url: 'http://127.0.0.1:{one}', models: [demo]}}" for index, one in enumerate(ports))
    file = folder / f"{build.name}.yaml"
    file.write_text(
        f"listen: {{port: {port}}}\nadmin: {{port: {admin_port}}}\n"
        f"keys:\n  - {{name: bench, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}\n"
        f"nodes:\n{nodes}\n"
        "classes:\n"
        "  - {name: urgent, when: {tenant: trading}, priority: 5, ttft_ms: 500}\n"
        "  - {name: long, when: {prompt_tokens: {ge: 100000}}, priority: 2, ttft_ms: 30000}\n"
        "  - {name: usual, priority: 3, ttft_ms: 20000, ttft_ms_per_1k: 250}\n"
    )
    return Process((*build.command, "gateway", "--config", str(file)), folder / f"{build.name}.log", build.environment())


def sglang_router(folder: Path, port: int, metrics_port: int, ports: list[int]) -> Process:
    """Raises CannotStart when it is neither installed nor installable."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run((sys.executable, "-m", "venv", PEERS), check=True, capture_output=True)
    if subprocess.run((python, "-c", "import sglang_router"), capture_output=True).returncode:
        install = subprocess.run((python, "-m", "pip", "install", "-q", "sglang-router"), capture_output=True, text=True)
        if install.returncode:
            raise CannotStart("not installed, and pip cannot install it")
    urls = [f"http://127.0.0.1:{one}" for one in ports]
    options = ("--policy", "cache_aware", "--disable-health-check", "--log-level", "error", "--prometheus-port", str(metrics_port))
    command = (
        str(python),
        "-m",
        "sglang_router.launch_router",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *options,
        "--worker-urls",
        *urls,
    )
    return Process(command, folder / "sglang-router.log")


@contextmanager
def peers(folder: Path, ports: list[int], notes: list[str]) -> Iterator[list[Peer]]:
    """The proxies, started and warm; what cannot start is noted and left out."""
    made = builds()
    proxied, routed, metrics, *own = free_ports(3 + 3 * len(made))
    with ExitStack() as stack:
        started = [Peer("nginx", proxied, stack.enter_context(proxy(folder, proxied, ports)).listening(proxied))]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for build, relayed, served, admin in zip(made, own[::3], own[1::3], own[2::3], strict=True):
            command = (build.python, str(Path(__file__).with_name("relay.py")), str(relayed), *urls)
            relay = Process(command, folder / f"{build.name} relay.log", build.environment())
            started.append(Peer(f"{build.name}, HTTP alone", relayed, stack.enter_context(relay).listening(relayed)))
            try:
                running = stack.enter_context(gateway(folder, build, served, admin, ports))
                started.append(Peer(build.name, served, running.listening(served)))
            except CannotStart as error:
                notes.append(f"{build.name}: {error}")
        try:
            router = stack.enter_context(sglang_router(folder, routed, metrics, ports))
            started.append(Peer("sglang-router", routed, router.listening(routed, 60)))
        except (CannotStart, OSError, subprocess.CalledProcessError) as error:
            notes.append(f"sglang-router: {error}")
        time.sleep(2.0)
        yield started


def script(folder: Path, name: str, text_bytes: int, *, stream: bool) -> Path:
    """A wrk script that posts one chat completion of the asked prompt size."""
    draw = random.Random(1)
    words: list[str] = []
    while sum(map(len, words)) + len(words) < text_bytes:
        words.append("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))))
    streamed = '"stream":true,' if stream else ""
    messages = '[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"%s"}]' % " ".join(words)
    path = folder / f"{name}.lua"
    path.write_text(
        'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\n'
        f'wrk.headers["Authorization"]="Bearer {KEY}"\n'
        f'wrk.body=\'{{"model":"demo","messages":{messages},{streamed}"max_tokens":64}}\'\n'
    )
    return path


def drive(peer: Peer, path: Path, connections: int, seconds: int) -> tuple[int, int]:
    """Answers and bad answers in `seconds` of wrk."""
    command = ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(path))
    output = subprocess.run((*command, f"http://127.0.0.1:{peer.port}/v1/chat/completions"), capture_output=True, text=True).stdout
    answers = bad = 0
    for line in output.splitlines():
        if "requests in" in line:
            answers = int(line.split()[0])
        elif "Non-2xx" in line:
            bad = int(line.split()[-1])
    return answers, bad


def cost_us(peer: Peer, path: Path, connections: int) -> tuple[float, int]:
    """CPU microseconds of the peer an answer, and how many answers were bad."""
    drive(peer, path, connections, 1)
    before = peer.process.cpu_us()
    answers, bad = drive(peer, path, connections, SECONDS)
    return (peer.process.cpu_us() - before) / max(1, answers), bad


def compare(started: list[Peer], path: Path, connections: int, notes: list[str]) -> dict[str, float]:
    """The median cost of each peer over some rounds, taken in turn so that a noisy moment hits all alike."""
    seen: dict[str, list[float]] = {peer.name: [] for peer in started}
    for _ in range(ROUNDS):
        for peer in started:
            cost, bad = cost_us(peer, path, connections)
            seen[peer.name].append(cost)
            if bad:
                notes.append(f"{peer.name}: {bad} answers to {path.stem} were not 2xx")
    return {name: median(costs) for name, costs in seen.items()}


def rows(what: str, unit: str, costs: dict[str, float], *, to_nginx: float, to_router: float | None = None) -> list[Row]:
    found = [Row(f"{what}: {name}", cost, unit) for name, cost in costs.items()]
    for build in builds():
        cost = costs.get(build.name)
        ratio = None if cost is None else cost / costs["nginx"]
        found.append(Row(f"{what}: {build.name} / nginx", ratio, "x", at_most=to_nginx))
        if to_router is not None and cost is not None and "sglang-router" in costs:
            found.append(Row(f"{what}: {build.name} / sglang-router", cost / costs["sglang-router"], "x", at_most=to_router))
    return found


def whole_answers(folder: Path, notes: list[str]) -> list[Row]:
    ports = free_ports(NODES)
    with engine(folder, ports).listening(ports[-1]), peers(folder, ports, notes) as started:
        small = compare(started, script(folder, "300B", 300, stream=False), CONNECTIONS, notes)
        large = compare(started, script(folder, "32KB", 32_768, stream=False), CONNECTIONS, notes)
    return [
        *rows("request of 300 B", "us CPU", small, to_nginx=2.8, to_router=0.5),
        *rows("request of 32 KB", "us CPU", large, to_nginx=3.2, to_router=0.5),
    ]


def streamed_answers(folder: Path, notes: list[str]) -> list[Row]:
    ports = free_ports(NODES)
    listed = ",".join(map(str, ports))
    source = (sys.executable, str(Path(__file__).with_name("streams.py")), listed, str(CHUNKS), str(INTERVAL_S))
    with Process(source, folder / "streams.log").listening(ports[-1]), peers(folder, ports, notes) as started:
        costs = compare(started, script(folder, "stream", 300, stream=True), STREAMS, notes)
    per_chunk = {name: cost / (CHUNKS + 1) for name, cost in costs.items()}
    return rows("streamed chunk", "us CPU", per_chunk, to_nginx=1.4)


def measure() -> list[Row]:
    missing = [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        return [Row("CPU per request and per chunk", None, note=f"{' and '.join(missing)} not installed")]
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="penstock-cost-") as name:
        found = [*whole_answers(Path(name), notes), *streamed_answers(Path(name), notes)]
    return [*found, *(Row(f"note: {note}"[:200], None) for note in dict.fromkeys(notes))]


if __name__ == "__main__":
    main(measure)
