"""A multipart form: small fields by name, and one file in pieces."""

from __future__ import annotations

import asyncio
import logging
import re

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from penstock.errors import CallError

SLICE_BYTES = 262_144
"""Parsed in one go: below a millisecond."""
FIELDS, FIELD_BYTES = 32, 8_192
# What is malformed is told to its sender; the parser would write a line of the log about each.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
_SAFE_NAME = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]|[/\\]")


class Form:
    """`fields` by name; `name` and `pieces` of the part with a filename that is called `file`, or None and nothing."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.name: str | None = None
        self.pieces: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._key = self._value = b""
        self._into: list[bytes] = []
        self._field = ""
        self._count = 0

    async def read(self, content_type: str, body: bytes) -> None:
        """Raises CallError."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
            raise CallError(400, "invalid_content_type", "Send a form: content-type multipart/form-data with its boundary.")
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._name_more(data[start:end]),
                "on_header_value": lambda data, start, end: self._value_more(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": lambda data, start, end: self._data(data[start:end]),
                "on_part_end": self._end,
                "on_end": self._whole,
            },
        )
        self._complete = False
        try:
            for at in range(0, len(body), SLICE_BYTES):
                parser.write(body[at : at + SLICE_BYTES])
                await asyncio.sleep(0)
            parser.finalize()
        except MultipartParseError as error:
            raise CallError(400, "invalid_form", f"The form is malformed: {error}.") from None
        if not self._complete:
            raise CallError(400, "invalid_form", "The form ends before its last boundary.")

    def _begin(self) -> None:
        self._headers = {}
        self._count += 1
        if self._count > FIELDS:
            raise CallError(400, "invalid_form", f"The form has more than {FIELDS} parts.")

    def _name_more(self, data: bytes) -> None:
        self._key += data

    def _value_more(self, data: bytes) -> None:
        self._value += data

    def _header_end(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key = self._value = b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not self._field:
            raise CallError(400, "invalid_form", "A part of the form has no name.")
        if b"filename" in options and self._field == "file":
            if self.name is not None:
                raise CallError(400, "invalid_form", "The form has more than one file.", field="file")
            self.name = _SAFE_NAME.sub("_", options[b"filename"].decode("utf-8", "replace"))[:255] or "file"
            self._into = self.pieces
        else:
            self._into = []

    def _data(self, data: bytes) -> None:
        self._into.append(data)
        if self._into is not self.pieces and sum(map(len, self._into)) > FIELD_BYTES:
            raise CallError(400, "invalid_form", f"'{self._field[:64]}' is longer than {FIELD_BYTES} bytes.", field=self._field[:64])

    def _end(self) -> None:
        if self._into is not self.pieces:
            self.fields[self._field] = b"".join(self._into).decode("utf-8", "replace")
            self._into = []

    def _whole(self) -> None:
        self._complete = True
