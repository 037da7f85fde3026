"""What is settled before the core hears of a call: routes, keys, bodies, browsers."""

from __future__ import annotations

import msgspec
import pytest
from tests.gateway.world import BODY, MODEL, STREAM, Caller, answer, ask, get, run, until, world

from penstock.config import Config, Limits, Listen
from penstock.gateway.app import CALLS, PAGES

DEEP = b'{"model":"deepseek-v3","messages":' + b'[{"content":' * 70 + b'"x"' + b"}]" * 70 + b"}"


def test_every_answer_has_a_request_id() -> None:
    async def test() -> None:
        async with world() as w:
            for path in (*PAGES, *CALLS, "/nowhere"):
                got = await get(w.port, path)
                assert got.headers["x-request-id"] == got.headers["x-penstock-request-id"]
            assert "x-request-id" in (await get(w.port, "/v1//models")).headers

    run(test)


@pytest.mark.parametrize(
    ("given", "echoed"), [("trace-1.a:b_c", True), ("x" * 64, True), ("x" * 65, False), ('a"b', False), ("a b", False)]
)
def test_a_callers_request_id_is_echoed_only_when_it_is_a_safe_short_token(given: str, echoed: bool) -> None:
    async def test() -> None:
        async with world() as w:
            for path, body in (("/v1/chat/completions", BODY), ("/v1/chat/completions", STREAM), ("/nowhere", {})):
                got = await ask(w.port, body, path, headers={"x-request-id": given})
                assert (got.headers["x-request-id"] == given) is echoed
                assert got.headers["x-penstock-request-id"] != given

    run(test)


def test_unknown_paths_are_not_found() -> None:
    async def test() -> None:
        async with world() as w:
            for path in ("/", "/v1", "/v1/chat", "/v1/chat/completions/", "/admin/state", "/metrics", "/V1/models"):
                got = await get(w.port, path)
                assert (got.status, got.error["code"]) == (404, "not_found")

    run(test)


def test_a_wrong_method_is_told_the_right_ones() -> None:
    async def test() -> None:
        async with world() as w:
            for path, allow in ((path, "POST, OPTIONS") for path in CALLS):
                got = await get(w.port, path)
                assert (got.status, got.headers["allow"], got.error["code"]) == (405, allow, "method_not_allowed")
            for path in PAGES:
                got = await ask(w.port, {}, path)
                assert (got.status, got.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
            assert (await get(w.port, "/v1/models", "DELETE")).status == 405

    run(test)


def test_models_are_listed_with_their_aliases() -> None:
    async def test() -> None:
        async with world(config=Config(aliases={"gpt-4o": MODEL, "ghost": "elsewhere"})) as w:
            for path in ("/v1/models", "/models"):
                got = await get(w.port, path)
                assert [model["id"] for model in got.json["data"]] == [MODEL, "gpt-4o"]

    run(test)


def test_one_model_is_shown_by_its_name_or_alias() -> None:
    async def test() -> None:
        async with world(config=Config(aliases={"gpt-4o": MODEL, "ghost": "elsewhere"})) as w:
            listed = (await get(w.port, "/v1/models")).json["data"]
            for one in listed:
                assert (await get(w.port, f"/v1/models/{one['id']}")).json == one
                assert (await get(w.port, f"/models/{one['id']}")).status == 200
            for name in ("ghost", "gpt-9", "a%20b"):
                got = await get(w.port, f"/v1/models/{name}")
                assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
            got = await get(w.port, f"/v1/models/{MODEL}", "DELETE")
            assert (got.status, got.headers["allow"]) == (405, "GET, HEAD, OPTIONS")

    run(test)


def test_a_model_whose_name_has_slashes_is_shown_under_its_plain_path() -> None:
    async def test() -> None:
        async with world(config=Config(aliases={"deepseek-ai/DeepSeek V3": MODEL})) as w:
            for path in ("/v1/models/deepseek-ai/DeepSeek%20V3", "/models/deepseek-ai/DeepSeek%20V3"):
                assert (await get(w.port, path)).json["id"] == "deepseek-ai/DeepSeek V3"

    run(test)


def test_health_is_the_process_and_ready_is_the_fleet() -> None:
    async def test() -> None:
        async with world(config=Config(probe_s=0.02)) as w:
            assert (await get(w.port, "/ready")).json == {"status": "ready"}
            await w.engines[0].stop()
            await until(lambda: not w.gateway.core.ready())
            got = await get(w.port, "/ready")
            assert (got.status, got.json) == (503, {"status": "no engine is up"})
            assert (await get(w.port, "/health")).status == 200
            w.gateway.app.draining = True
            assert (await get(w.port, "/ready")).json == {"status": "draining"}

    run(test)


def test_an_unknown_model_is_not_found() -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, BODY | {"model": "gpt-9"})
            assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
            assert "gpt-9" in got.error["message"]
            assert not w.asked

    run(test)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        DEEP,
        b'{"model":"deepseek-v3","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"deepseek-v3","messages":[{"role":"user","content":"x"}],"top_p":Infinity}',
        msgspec.json.encode({"model": MODEL}),
        msgspec.json.encode(BODY | {"model": 7}),
        msgspec.json.encode(BODY | {"messages": "Hello"}),
        msgspec.json.encode(BODY | {"messages": []}),
        msgspec.json.encode(BODY | {"max_tokens": 10**12}),
        msgspec.json.encode(BODY | {"max_tokens": -1}),
        msgspec.json.encode(BODY | {"max_tokens": "many"}),
        msgspec.json.encode(BODY | {"n": 1_000}),
        msgspec.json.encode(BODY | {"stream": "yes"}),
        msgspec.json.encode(BODY | {"stop": ["x"] * 10_000}),
        msgspec.json.encode(BODY | {"api_base": "http://127.0.0.1:1"}),
        msgspec.json.encode(BODY | {"extra_headers": {"a": "b"}}),
    ],
    ids=lambda body: repr(body[-60:]),
)
def test_a_bad_body_is_explained_and_reaches_no_engine(body: bytes) -> None:
    async def test() -> None:
        async with world() as w:
            async with Caller(w.port) as caller:
                caller.send(body)
                got = await caller.answer()
                assert got.status == 400
                assert set(got.error) >= {"message", "type", "param", "code"}
                assert got.error["type"] == "invalid_request_error"
                caller.send(BODY)
                assert (await caller.answer()).status == 200
            assert [asked.json for asked in w.asked] == [BODY]

    run(test)


def test_too_large_a_body_is_refused_before_it_is_read() -> None:
    async def test() -> None:
        async with world(config=Config(limits=Limits(body_bytes=1_000))) as w:
            got = await ask(w.port, BODY | {"messages": [{"role": "user", "content": "x" * 2_000}]})
            assert got.status == 413
            assert got.error["message"]
            assert not w.asked

    run(test)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a/b\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/%2e%2e/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1//chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 10_000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:70]),
)
def test_malformed_requests_are_answered_with_4xx_and_an_error_in_the_same_form(raw: bytes) -> None:
    async def test() -> None:
        async with world() as w:
            async with Caller(w.port) as caller:
                caller.writer.write(raw)
                got = await caller.answer()
                assert 400 <= got.status < 500
                assert set(got.error) >= {"message", "type", "code"}
                assert got.headers["x-request-id"]
            assert not w.asked
            assert (await ask(w.port, BODY)).status == 200

    run(test)


def test_with_keys_a_call_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-desk,lab:sk-lab")

    async def test() -> None:
        async with world() as w:
            for key in (None, "Bearer sk-wrong", "Basic sk-desk", "Bearer"):
                headers = {} if key is None else {"authorization": key}
                for path, body in (("/v1/chat/completions", BODY), ("/v1/embeddings", b"not even json")):
                    got = await ask(w.port, body, path, headers=headers)
                    assert (got.status, got.error["code"], got.error["type"]) == (401, "invalid_api_key", "authentication_error")
                    assert got.headers["www-authenticate"] == "Bearer"
                assert (await get(w.port, "/v1/models", **({"authorization": key} if key else {}))).status == 401
            assert not w.asked
            assert (await ask(w.port, BODY, headers={"authorization": "Bearer sk-lab"})).status == 200
            assert (await get(w.port, "/v1/models", authorization="Bearer sk-desk")).status == 200
            assert (await get(w.port, "/health")).status == 200
            assert (await get(w.port, "/ready")).status == 200

    run(test)


def test_listed_origins_get_cors_headers_and_others_do_not() -> None:
    origin = "https://chat.example"

    async def test() -> None:
        async with world(config=Config(listen=Listen(cors=(origin,)))) as w:
            got = await ask(w.port, BODY, headers={"origin": origin})
            assert (got.status, got.headers["access-control-allow-origin"]) == (200, origin)
            assert "retry-after-ms" in got.headers["access-control-expose-headers"]
            got = await get(
                w.port, "/v1/chat/completions", "OPTIONS", origin=origin, access_control_request_headers="authorization, x-stainless-os"
            )
            assert (got.status, got.headers["access-control-allow-methods"]) == (204, "POST")
            assert got.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
            got = await get(w.port, "/v1/chat/completions", "OPTIONS", origin="https://evil.example")
            assert not [name for name in got.headers if name.startswith("access-control")]

    run(test)


def test_any_origin_may_be_let_in() -> None:
    async def test() -> None:
        async with world(config=Config(listen=Listen(cors=("*",)))) as w:
            assert (await ask(w.port, BODY, headers={"origin": "https://a.example"})).headers["access-control-allow-origin"] == "*"

    run(test)


def test_without_keys_a_strangers_page_cannot_spend_the_engines() -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, BODY, headers={"origin": "https://evil.example", "content-type": "text/plain"})
            assert (got.status, got.error["code"]) == (403, "origin_not_allowed")
            assert not w.asked

    run(test)


def test_a_foreign_host_is_refused_where_hosts_are_listed() -> None:
    async def test() -> None:
        async with world(config=Config(listen=Listen(hosts=("gateway",)))) as w:
            assert (await ask(w.port, BODY)).status == 200
            assert 400 <= (await ask(w.port, BODY, headers={"host": "rebound.example"})).status < 500
            assert len(w.asked) == 1

    run(test)


def test_the_error_for_an_unknown_model_lists_those_there_are() -> None:
    async def test() -> None:
        async with world(config=Config(aliases={"gpt-4o": MODEL})) as w:
            got = await ask(w.port, BODY | {"model": "gpt-9"})
            assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
            assert got.error["message"] == f"The model 'gpt-9' does not exist here. Known: {MODEL}, gpt-4o."

    run(test)


def test_what_never_reached_the_core_is_counted_by_its_code() -> None:
    async def test() -> None:
        async with world(answer) as w:
            await ask(w.port, b"{")
            await ask(w.port, BODY | {"model": "gpt-9"})
            assert w.gateway.ledger.turned_away == {"invalid_json": 1, "model_not_found": 1}

    run(test)


def test_what_is_not_http_is_counted_beside_the_connections() -> None:
    async def test() -> None:
        async with world(answer) as w:
            await ask(w.port, BODY, headers={"host": "a/b"})
            async with Caller(w.port) as caller:
                caller.send(BODY)
                await caller.answer()
                host = w.gateway.host()
            assert host.http_refusals == {"bad_host": 1}
            assert host.connections >= 1
            assert host.journal == "off"

    run(test)
