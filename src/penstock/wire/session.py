"""The conversation that a call belongs to, as its caller names it: the header `x-penstock-session`, else the body's `prompt_cache_key`.

A name means something inside its tenant only: what is kept by it must be kept by (tenant, name), so that tenants who hit on the
same name never meet.
"""

from __future__ import annotations

from penstock.errors import CallError

HEADER, FIELD = "x-penstock-session", "prompt_cache_key"
LONGEST = 256
"""Characters; OpenAI allows 64 in `prompt_cache_key`."""


def header(value: str) -> str:
    """The name in a header, whose bytes were read one by one; in UTF-8 where that is what they are. Raises CallError."""
    try:
        value = value.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        pass
    return checked(value.strip(), HEADER)


def checked(name: str, field: str) -> str:
    """Raises CallError for what no name is."""
    if len(name) > LONGEST:
        message = f"{field!r} may have at most {LONGEST} characters; send a shorter one, such as a hash."
        raise CallError(400, "string_above_max_length", message, field=field)
    if not name.isprintable():
        raise CallError(400, "invalid_value", f"{field!r} may hold printable characters only.", field=field)
    return name
