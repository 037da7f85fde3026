"""OpenAI's calls and answers as bytes: a call is read once, and only as much of it as admission and routing need."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import UNSET, Raw

from penstock.config import Limits
from penstock.errors import CallError
from penstock.wire import caps, difficulty, session, thinking
from penstock.wire.call import NO_METADATA, Call
from penstock.wire.counts import Usage
from penstock.wire.depth import deeper
from penstock.wire.fields import ABSENT, EXPECTED, Chat, Completion, Embedding, Error
from penstock.wire.metadata import picked
from penstock.wire.prompt import SLICE_BYTES, blocks, tokens
from penstock.wire.usage import usage

__all__ = ["Call", "Usage", "error", "error_code", "models", "read", "usage", "whole"]

REFUSED = frozenset({"api_base", "base_url", "api_key", "extra_headers", "organization"})
"""Keys that would have the engine side call elsewhere or as somebody else; they come from the configuration alone."""
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Status -> OpenAI's error type, where it is neither `invalid_request_error` (4xx) nor `server_error` (5xx)."""

PLAIN = frozenset({b"", b"null", b'{"type":"text"}', b'{"type": "text"}'})
"""Formats of answers that are none."""

Fields = Chat | Completion | Embedding

_DECODERS: dict[str, msgspec.json.Decoder[Chat] | msgspec.json.Decoder[Completion] | msgspec.json.Decoder[Embedding]] = {
    "chat": msgspec.json.Decoder(Chat),
    "completions": msgspec.json.Decoder(Completion),
    "embeddings": msgspec.json.Decoder(Embedding),
}
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ASK_USAGE = b'{"stream_options":{"include_usage":true},'
_FIELD = re.compile(r" at `\$\.(\w+)|field `(\w+)`$").search


def read(route: str, body: bytes, limits: Limits, salt: int, aliases: Mapping[str, str], metadata: Collection[str] = ()) -> Call:
    """Read and check the body of a call to `route` (a `facts.Route`). `salt`, 64 bits, keeps tenants' prefix hashes apart;
    `metadata` names the fields of the call's `metadata` to read; where `difficulty` is among them, the call is given one.

    Raises CallError, which names the field and the fix, for everything that no engine should see.
    """
    fields = _decoded(route, body, limits)
    text = bytes(fields.prompt)
    caps.check_prompt(fields.PROMPT, text, limits)
    found = picked(fields.metadata, metadata) if metadata else NO_METADATA
    asked = fields.model
    model = aliases.get(asked, asked) if aliases else asked
    if isinstance(fields, Embedding):
        if model is not asked:
            body = _rewritten(body, model, ask_usage=False)
        size = tokens(text, 0)
        hard = difficulty.graded(found.get(difficulty.NAME), size, 0) if metadata and difficulty.NAME in metadata else 0.0
        return Call(model, asked, False, False, 0, size, blocks(text, model, None, salt), body, found, session="", difficulty=hard)
    caps.check(fields, limits)
    stream, options = fields.stream is True, fields.stream_options
    usage_asked = bool(options and options.include_usage)
    if model is not asked or (stream and not usage_asked and options is not UNSET):
        body = _rewritten(body, model, ask_usage=stream and not usage_asked)
    elif stream and not usage_asked:
        body = _ASK_USAGE + body[body.index(b"{") + 1 :]
    tools = fields.tools or fields.functions
    max_tokens = fields.max_completion_tokens or fields.max_tokens or 0
    size = tokens(text, len(tools))
    prefix = blocks(text, model, tools, salt) if len(text) > SLICE_BYTES else ()
    choices = 1 if fields.n is None and fields.best_of is None else max(fields.n or 1, fields.best_of or 1)
    thinks, structured = None, False
    if isinstance(fields, Chat) and (model is not asked or _tells(fields)):
        thinks = thinking.asked(fields, "" if model is asked else asked)
        structured = bytes(fields.response_format) not in PLAIN
    said = fields.prompt_cache_key
    name = session.checked(said, session.FIELD) if said else ""
    hard = 0.0
    if metadata and difficulty.NAME in metadata:
        hard = difficulty.graded(found.get(difficulty.NAME), size, max_tokens, bool(tools))
    plain = choices == 1 and not tools and (fields.logprobs is None or fields.logprobs is False)
    return Call(
        model, asked, stream, usage_asked, max_tokens, size, prefix, body, found, choices, thinks, bool(tools), structured,
        name, hard, plain,
    )  # fmt: skip


def _tells(fields: Chat) -> bool:
    """Whether it has any field about thoughts, or about the answer's form."""
    return not (
        fields.thinking is ABSENT
        and fields.reasoning_effort is ABSENT
        and fields.chat_template_kwargs is ABSENT
        and fields.enable_thinking is ABSENT
        and fields.response_format is ABSENT
    )


def with_model(body: bytes, model: str) -> bytes:
    """A body that was read before, for another model."""
    return _rewritten(body, model, ask_usage=False)


def canonical(body: bytes, without: Collection[str], **fields: object) -> tuple[dict[str, Raw], bytes]:
    """A body that was read before: its fields, and what two of them have in common that ask the same.

    Fields in order of name, each value's text as it came; those called in `without` are left out, `fields` put in.
    """
    given = _OBJECT.decode(body)
    kept = {name: value for name, value in given.items() if name not in without}
    kept |= {name: Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    return given, msgspec.json.encode(dict(sorted(kept.items())))


def error(status: int, code: str, message: str, field: str | None = None, **extra: object) -> bytes:
    """An error body in OpenAI's form; `extra` keys are added beside its own."""
    kind = TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": field, "code": code, **extra}})


_ERROR = msgspec.json.Decoder(Error)


def error_code(body: bytes) -> str:
    """The code of an error body of ours; empty for anything else."""
    try:
        return _ERROR.decode(body).error.code or ""
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return ""


def whole(body: bytes) -> bytes:
    """A call that was read, without what asks for a stream."""
    fields = _OBJECT.decode(body)
    fields.pop("stream", None)
    fields.pop("stream_options", None)
    return msgspec.json.encode(fields)


def models(names: Iterable[str]) -> bytes:
    """The answer to GET /v1/models."""
    return msgspec.json.encode({"object": "list", "data": [_model(name) for name in names]})


def model(name: str) -> bytes:
    """The answer to GET /v1/models/NAME."""
    return msgspec.json.encode(_model(name))


def _model(name: str) -> dict[str, object]:
    """`created` is 0: when an engine loaded a model is not known here."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "penstock"}


def _decoded(route: str, body: bytes, limits: Limits) -> Fields:
    """Typed fields of a body that is valid UTF-8 and JSON and nests no deeper than allowed."""
    try:
        if not body.isascii():
            body.decode()
        fields = _DECODERS[route].decode(body)
    except UnicodeDecodeError as at:
        raise CallError(400, "invalid_utf8", f"The body must be UTF-8; byte {at.start} is not.") from None
    except RecursionError:
        raise _too_deep(limits) from None
    except msgspec.ValidationError as problem:
        raise _refusal(str(problem)) from None
    except msgspec.DecodeError as problem:
        raise CallError(400, "invalid_json", f"The body must be one JSON object: {problem}.") from None
    if deeper(body, limits.json_depth):
        raise _too_deep(limits)
    return fields


def _too_deep(limits: Limits) -> CallError:
    message = f"The body's JSON may nest at most {limits.json_depth} levels deep, and not in hundreds of thousands of parts; flatten it."
    return CallError(400, "json_too_deep", message)


def _refusal(problem: str) -> CallError:
    """The decoder's complaint as an error that names the field and says what it must be."""
    found = _FIELD(problem)
    if found is None:
        return CallError(400, "invalid_json", "The body must be a JSON object.")
    field = found[1] or found[2]
    if found[2]:
        return CallError(400, "missing_required_parameter", f"'{field}' is missing: it must be {EXPECTED[field]}.", field=field)
    if field in REFUSED:
        return CallError(400, "unsupported_parameter", f"'{field}' cannot be set in a call; remove it.", field=field)
    return caps.wrong(field)


def _rewritten(body: bytes, model: str, *, ask_usage: bool) -> bytes:
    """The same object with another model, or asking for usage: every other field keeps its text, numbers and all."""
    fields = _OBJECT.decode(body)
    fields["model"] = Raw(msgspec.json.encode(model))
    if ask_usage:
        given = fields.get("stream_options")
        options = {} if given is None or bytes(given) == b"null" else _OBJECT.decode(given)
        options["include_usage"] = Raw(b"true")
        fields["stream_options"] = Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)
