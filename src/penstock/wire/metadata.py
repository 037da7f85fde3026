"""The fields of a call's `metadata` that rules look at, as text.

OpenAI's API has strings only; numbers and booleans, which some clients send, count as their JSON text.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec import Raw

from penstock.errors import CallError
from penstock.wire.fields import EXPECTED

METADATA_BYTES = 16_384
"""As JSON; OpenAI allows 16 pairs of 64 and 512 characters."""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_STRING = msgspec.json.Decoder(str)


def picked(raw: Raw, names: Collection[str]) -> dict[str, str]:
    """Those of the fields `names` that the JSON `raw` holds. A name with dots that is no field itself goes into objects:
    `order.amount` is the field `amount` of the object `order`. Raises CallError.
    """
    if not raw or bytes(raw) == b"null":
        return {}
    if len(raw) > METADATA_BYTES:
        message = f"'metadata' may take at most {METADATA_BYTES} bytes as JSON; send less."
        raise CallError(400, "object_above_max_length", message, field="metadata")
    try:
        fields = _OBJECT.decode(raw)
        return {name: text for name in names if (text := _text(_find(fields, name))) is not None}
    except msgspec.DecodeError:
        # Of the wrong type, or a string with half a surrogate pair.
        raise CallError(400, "invalid_value", f"'metadata' must be {EXPECTED['metadata']}.", field="metadata") from None


def _find(fields: dict[str, Raw], name: str) -> bytes | None:
    value = fields.get(name)
    if value is not None or "." not in name:
        return None if value is None else bytes(value)
    head, _, rest = name.partition(".")
    inner = fields.get(head)
    if inner is None or bytes(inner)[:1] != b"{":
        return None
    return _find(_OBJECT.decode(inner), rest)


def _text(value: bytes | None) -> str | None:
    """Text of a string, a number or a boolean; None of everything else."""
    if value is None or value[:1] in (b"{", b"[", b"n"):
        return None
    return _STRING.decode(value) if value[:1] == b'"' else value.decode()
