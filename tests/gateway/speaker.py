"""Engines that speak as the real ones do: their pages, under their paths, on a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from tests.gateway.world import Asked, Behave, Engine

Page = tuple[int, bytes]


class Speaker(Engine):
    """Answers GET with `pages`, 404 where there is none; a page that is None never answers."""

    pages: dict[str, Page | None]

    def __init__(self, name: str, behave: Behave, tls: Any = None) -> None:
        super().__init__(name, behave, tls)
        self.pages = {}
        self.paths: list[str] = []
        """Paths that were asked for."""
        self.keys: list[str] = []
        """Authorization of each."""

    def count(self, path: str) -> int:
        return self.paths.count(path)

    def _probe(self, asked: Asked) -> None:
        self.probes += 1
        path = asked.line.split()[1]
        self.paths.append(path)
        self.keys.append(asked.headers.get("authorization", ""))
        page = self.pages.get(path, (404, b'{"detail":"Not Found"}'))
        if page is not None:
            status, body = page
            asked.writer.write(b"HTTP/1.1 %d Status\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


def models(owner: str, *names: str) -> Page:
    data = [{"id": name, "object": "model", "created": 1, "owned_by": owner} for name in names]
    return 200, msgspec.json.encode({"object": "list", "data": data})


LOADING = 503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'

VLLM = {
    "/health": (200, b""),
    "/v1/models": models("vllm", "m"),
    "/metrics": (
        200,
        b"# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        b"# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        b'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0\n'
        b'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n',
    ),
}
VLLM_OLD = VLLM | {"/metrics": (200, VLLM["/metrics"][1].replace(b"kv_cache_usage_perc", b"gpu_cache_usage_perc"))}
SGLANG = {
    "/health": (200, b""),
    "/v1/models": models("sglang", "m"),
    "/metrics": (
        200,
        b"# TYPE sglang:num_running_reqs gauge\n"
        b'sglang:num_running_reqs{model_name="m",tp_rank="0"} 3.0\n'
        b'sglang:num_queue_reqs{model_name="m",tp_rank="0"} 2.0\n'
        b'sglang:token_usage{model_name="m",tp_rank="0"} 0.25\n',
    ),
}
LLAMA_CPP = {
    "/health": (200, b'{"status":"ok"}'),
    "/v1/models": models("llamacpp", "m"),
    "/metrics": (
        200,
        b"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 3\n"
        b"# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 2\n",
    ),
}
LLAMA_CPP_OLD = LLAMA_CPP | {"/metrics": (200, LLAMA_CPP["/metrics"][1] + b"llamacpp:kv_cache_usage_ratio 0.25\n")}
ITERATION = {
    "iter": 7,
    "numActiveRequests": 3,
    "numQueuedRequests": 2,
    "kvCacheStats": {"maxNumBlocks": 400, "usedNumBlocks": 100, "freeNumBlocks": 300, "tokensPerBlock": 32},
}
TENSORRT_LLM = {
    "/health": (200, b""),
    "/v1/models": models("tensorrt_llm", "m"),
    "/metrics": (200, msgspec.json.encode([{"iter": 6, "numActiveRequests": 9}, ITERATION])),
}
TENSORRT_LLM_PROMETHEUS = TENSORRT_LLM | {
    "/metrics": (200, b"[]"),
    "/prometheus/metrics": (
        200,
        b'trtllm_num_requests_running{model_name="m"} 3.0\n'
        b'trtllm_num_requests_waiting{model_name="m"} 2.0\n'
        b'trtllm_kv_cache_utilization{model_name="m"} 0.25\n',
    ),
}
OLLAMA = {
    "/": (200, b"Ollama is running"),
    "/api/version": (200, b'{"version":"0.12.0"}'),
    "/v1/models": models("library", "m"),
}
OPENAI = {"/v1/models": models("system", "m")}
DEEPSEEK = {"/models": models("deepseek", "m")}


async def quiet(speaker: Speaker) -> None:
    """Let what is under way arrive."""
    seen = -1
    while seen != speaker.probes:
        seen = speaker.probes
        await asyncio.sleep(0.05)
