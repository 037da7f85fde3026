"""The few exceptions, as a tree. Expected ends of a request are values of `facts.Outcome`, not exceptions.

PenstockError
+-- ConfigError      a configuration that cannot be used: key, line, fix
+-- CallError        a caller's request that cannot be served as sent: status, code, field, fix
+-- TraceError       a trace, profile or journal file that cannot be read: file, line, fix
"""

from __future__ import annotations


class PenstockError(Exception):
    """Any error a person should read as one line."""


class ConfigError(PenstockError):
    """A configuration that cannot be used."""

    def __init__(self, message: str, *, key: str = "", line: int = 0, file: str = "") -> None:
        self.message, self.key, self.line, self.file = message, key, line, file
        place = ":".join(part for part in (file, str(line) if line else "") if part)
        super().__init__(": ".join(part for part in (place, key, message) if part))


class CallError(PenstockError):
    """A caller's request that cannot be served as sent; becomes an OpenAI-shaped error body."""

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None) -> None:
        self.status, self.code, self.message, self.field = status, code, message, field
        super().__init__(message)


class TraceError(PenstockError):
    """A trace, profile or journal file that cannot be read."""

    def __init__(self, message: str, *, file: str = "", line: int = 0) -> None:
        self.message, self.file, self.line = message, file, line
        place = ":".join(part for part in (file, str(line) if line else "") if part)
        super().__init__(": ".join(part for part in (place, message) if part))
