"""One embedded engine behind its HTTP routes: the batching model, run by the clock, one timer for all its answers."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hmac import compare_digest
from math import ceil, inf
from time import time, time_ns

import msgspec

from penstock import __version__
from penstock.engine import call as calls
from penstock.engine import faults, text
from penstock.engine.answer import JSON, Answer, Choice
from penstock.engine.clock import Clock
from penstock.engine.exposition import ITL_BUCKETS, TTFT_BUCKETS, Buckets, Page
from penstock.engine.model import Engine
from penstock.engine.sequence import Ended, Outcome, Sequence, Started
from penstock.errors import CallError
from penstock.facts import Profile
from penstock.http1 import Exchange

_TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_KINDS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    500: "InternalServerError",
}
_LOOPBACK = ("127.", "::1")
OWNER = "penstock-engine"
"""Whose the models are, in their list: that a gateway may know what this engine can do."""


def error(status: int, message: str, field: str | None = None) -> bytes:
    """An error body as vLLM writes it."""
    kind = _KINDS.get(status) or ("BadRequestError" if status < 500 else "InternalServerError")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": field, "code": status}})


class Embedding:
    """An embeddings call: prefill alone, answered when it is done."""

    __slots__ = ("arrived", "call", "exchange")

    def __init__(self, exchange: Exchange, call: calls.EmbeddingCall, arrived: float) -> None:
        self.exchange, self.call, self.arrived = exchange, call, arrived

    def finish(self) -> None:
        call = self.call
        vectors = [text.embedding(one, call.dimensions) for one in call.texts]
        shown = [b64encode(text.float32(vector)).decode() if call.base64 else vector for vector in vectors]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)]
        usage = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
        self.exchange.respond(200, JSON, msgspec.json.encode({"object": "list", "data": data, "model": call.model, "usage": usage}))


class Node:
    """One engine. `app` is what an http1.Server calls."""

    def __init__(self, profile: Profile, models: tuple[str, ...], speed: float = 1.0, key: bytes = b"") -> None:
        self.engine = Engine(profile)
        self.models = models
        self._speed = speed
        self._key = b"Bearer " + key if key else b""
        self._loop = asyncio.get_running_loop()
        self._clock = Clock(speed)
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self._ids = 0
        self._live: dict[int, Choice | Embedding] = {}
        self._streams: dict[int, Choice] = {}
        """Choices of streamed answers whose first token is out."""
        self._faults = faults.Faults()
        self._context = self.engine.memory.pages * profile.page_tokens
        self._ttft = Buckets(TTFT_BUCKETS)
        self._started = 0
        self._finished = {"stop": 0, "length": 0, "abort": 0}
        self._created = int(time())
        self._name = f"{time_ns():x}"
        self._routes = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("GET", "/v1/models"): self._list,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/faults"): self._show_faults,
            ("POST", "/faults"): self._set_faults,
        }

    # HTTP.

    def app(self, exchange: Exchange) -> None:
        route = self._routes.get((exchange.method, exchange.path))
        try:
            if route is None:
                known = any(path == exchange.path for _, path in self._routes)
                raise CallError(405, "method", "Method Not Allowed") if known else CallError(404, "path", "Not Found")
            if self._key and exchange.path.startswith("/v1/"):
                self._authorise(exchange)
            route(exchange)
        except CallError as refused:
            exchange.respond(refused.status, JSON, error(refused.status, refused.message, refused.field))

    def _authorise(self, exchange: Exchange) -> None:
        if not compare_digest(exchange.headers.get("authorization", "").encode(), self._key):
            raise CallError(401, "key", "Unauthorized")

    def _chat(self, exchange: Exchange) -> None:
        self._generate(exchange, True)

    def _completions(self, exchange: Exchange) -> None:
        self._generate(exchange, False)

    def _generate(self, exchange: Exchange, chat: bool) -> None:
        call = calls.read(chat, exchange.body, self.models, self._context)
        touched = self._faults.take()
        if touched and self._faults.status is not None:
            raise CallError(self._faults.status, "fault", "A fault was asked for.")
        id = f"{'chatcmpl' if chat else 'cmpl'}-{self._name}{self._next_id():x}"
        answer = Answer(exchange, call, chat, id, int(time()), self._loop.time())
        if touched:
            answer.cut_after = self._faults.cut_after_tokens
        if touched and self._faults.stall_s:
            handle = self._loop.call_later(self._faults.stall_s, self._submit, answer, exchange)
            exchange.on_cancel = handle.cancel
        else:
            self._submit(answer, exchange)

    def _submit(self, answer: Answer, exchange: Exchange) -> None:
        now = self._clock.now()
        ids = []
        for choice in answer.choices:
            id, part = self._next_id(), choice.part
            ids.append(id)
            self._live[id] = choice
            # Nothing may be left to say but that it is over, which the end-of-text token does.
            self.engine.submit(Sequence(id, part.prompt_tokens, part.output_tokens or 1, part.blocks), now)
        exchange.on_cancel = lambda: self._cancel(ids)
        exchange.on_resume = answer.resume
        if answer.cut_after is not None:
            answer.on_cut = lambda: self._loop.call_soon(self._cancel, ids)
        self._move(now)

    def _embeddings(self, exchange: Exchange) -> None:
        call = calls.read_embedding(exchange.body, self.models)
        if call.prompt_tokens > self._context:
            raise CallError(400, "context", f"This model's maximum context length is {self._context} tokens, not {call.prompt_tokens}.")
        if self._faults.take() and self._faults.status is not None:
            raise CallError(self._faults.status, "fault", "A fault was asked for.")
        now = self._clock.now()
        id = self._next_id()
        self._live[id] = Embedding(exchange, call, self._loop.time())
        exchange.on_cancel = lambda: self._cancel([id])
        self.engine.submit(Sequence(id, call.prompt_tokens, 1), now)
        self._move(now)

    def _cancel(self, ids: list[int]) -> None:
        """The caller left: free its slots now."""
        now = self._clock.now()
        for id in ids:
            if self._live.pop(id, None) is not None:
                self._streams.pop(id, None)
                self._finished["abort"] += self.engine.cancel(id, now)
        self._move(now)

    def _list(self, exchange: Exchange) -> None:
        listed = [
            {"id": name, "object": "model", "created": self._created, "owned_by": OWNER, "root": name, "max_model_len": self._context}
            for name in self.models
        ]
        exchange.respond(200, JSON, msgspec.json.encode({"object": "list", "data": listed}))

    def _health(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON, b"")

    def _version(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON, msgspec.json.encode({"version": __version__}))

    def _show_faults(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON, msgspec.json.encode(self._faults))

    def _set_faults(self, exchange: Exchange) -> None:
        if not exchange.peer.startswith(_LOOPBACK):
            raise CallError(404, "path", "Not Found")
        self._faults = faults.read(exchange.body)
        self._move(self._clock.now())
        self._clock.set_rate(self._speed / self._faults.slow)
        self._wake()
        self._show_faults(exchange)

    def _metrics(self, exchange: Exchange) -> None:
        now = self._clock.now()
        self._move(now)
        engine, page = self.engine, Page(self.models[0])
        page.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", engine.running)
        page.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", engine.waiting)
        total = engine.memory.pages * engine.profile.page_tokens
        page.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", engine.kv_used_tokens / total)
        page.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", engine.prompt_tokens)
        page.counter("vllm:generation_tokens", "Number of generation tokens processed.", engine.progress(now)[0] + self._started)
        page.counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.", engine.preempted)
        page.counter("vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", engine.prompt_tokens)
        page.counter("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", engine.hit_tokens)
        page.finished(self._finished)
        page.histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", self._ttft)
        page.histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", self._itl())
        exchange.respond(200, _TEXT, page.bytes())

    def _itl(self) -> Buckets:
        """Model time between tokens in real seconds."""
        buckets = Buckets(ITL_BUCKETS)
        for value, weight in self.engine.itl.rows():
            buckets.add(value / self._speed, weight)
        return buckets

    # The model's time.

    def _tick(self) -> None:
        self._timer, self._due = None, inf
        self._move(self._clock.now())

    def _move(self, now: float) -> None:
        """Bring the model to `now`, write what came of it, and set the timer."""
        for outcome in self.engine.advance(now):
            self._tell(outcome)
        if self._streams:
            streams = self._streams
            for id, out in self.engine.counts(now):
                choice = streams.get(id)
                if choice is not None and out > choice.out:
                    choice.answer.emit(choice, out)
        self._wake(now)

    def _wake(self, now: float | None = None) -> None:
        engine = self.engine
        due = engine.deadline
        if self._streams:
            due = min(due, engine.step_deadline(self._clock.now() if now is None else now))
        if self._timer is not None:
            if self._due <= due and now is not None:
                return
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due < inf:
            # Timers of event loops count in milliseconds: a little late is one wake-up, a little early would be two.
            self._timer = self._loop.call_later(ceil(self._clock.delay_s(due) * 1e3) / 1e3, self._tick)

    def _tell(self, outcome: Outcome) -> None:
        one = self._live.get(outcome.id)
        if one is None:
            return
        if isinstance(outcome, Started):
            self._started += 1
            if isinstance(one, Choice):
                self._ttft.add(self._loop.time() - one.answer.arrived)
                one.answer.start(one, outcome.cached_tokens)
                if one.answer.call.stream:
                    self._streams[outcome.id] = one
        else:
            self._end(outcome, one)

    def _end(self, outcome: Ended, one: Choice | Embedding) -> None:
        del self._live[outcome.id]
        self._streams.pop(outcome.id, None)
        if isinstance(one, Embedding):
            self._finished["stop"] += 1
            one.finish()
            return
        self._finished[one.reason.decode()] += 1
        one.answer.finish(one)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids
