"""What a head must be accepted as, and how it is read."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Limits
from penstock.errors import CallError
from penstock.http1 import head as heads

LIMITS = Limits()


def request(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes | None = b"a") -> heads.RequestHead:
    named = () if host is None else (b"Host: " + host,)
    return heads.request(b"\r\n".join((first, *named, *lines, b"", b"")), LIMITS)


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", bodyless: bool = False) -> heads.AnswerHead:
    return heads.answer(b"\r\n".join((first, *lines, b"", b"")), LIMITS, bodyless)


def test_a_request_head_is_read_whole() -> None:
    head = request(
        b"Content-Length: 7", b"X-Tab:\t a\tb \t", b"X-Empty:", first=b"POST /v1/chat?a=b&c=%2e HTTP/1.1", host=b"Penstock.example:80"
    )
    assert (head.method, head.path, head.query, head.length) == ("POST", "/v1/chat", "a=b&c=%2e", 7)
    assert head.headers == {"host": "Penstock.example:80", "content-length": "7", "x-tab": "a\tb", "x-empty": ""}
    assert head.size == len(head.raw) + 7
    assert head.keep_alive
    assert not head.expects


@pytest.mark.parametrize("host", [b"a", b"A.b-c_d", b"127.0.0.1", b"127.0.0.1:8080", b"[::1]", b"[::1]:8080", b"a:65535"])
def test_well_formed_hosts_are_accepted(host: bytes) -> None:
    assert request(host=host).headers["host"] == host.decode()


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a/b/", "/a/b/", ""),
        (b"/a.b/..c/.../x", "/a.b/..c/.../x", ""),
        (b"/a%20b%C3%A4", "/a%20b%C3%A4", ""),
        (b"/a:b@c;d=e,f", "/a:b@c;d=e,f", ""),
        (b"/?", "/", ""),
        (b"/?a=//../%2f?", "/", "a=//../%2f?"),
        (b"http://a/x?y", "/x", "y"),
        (b"HTTPS://A/x", "/x", ""),
        (b"http://a", "/", ""),
        (b"http://a?y", "/", "y"),
    ],
)
def test_well_formed_targets_are_accepted(raw: bytes, path: str, query: str) -> None:
    head = request(first=b"GET " + raw + b" HTTP/1.1")
    assert (head.path, head.query) == (path, query)


def test_asterisk_is_a_target_of_options() -> None:
    assert request(first=b"OPTIONS * HTTP/1.1").path == "*"


@pytest.mark.parametrize(
    ("first", "lines", "keeps"),
    [
        (b"GET / HTTP/1.1", (), True),
        (b"GET / HTTP/1.1", (b"Connection: close",), False),
        (b"GET / HTTP/1.1", (b"Connection: Keep-Alive , CLOSE",), False),
        (b"GET / HTTP/1.1", (b"Connection: x", b"Connection: close"), False),
        (b"GET / HTTP/1.1", (b"Connection: x-close",), True),
        (b"GET / HTTP/1.0", (), False),
        (b"GET / HTTP/1.0", (b"Connection: keep-alive",), True),
        (b"GET / HTTP/1.0", (b"Connection: keep-alive, close",), False),
    ],
)
def test_connection_header_decides_whether_the_connection_lasts(first: bytes, lines: tuple[bytes, ...], keeps: bool) -> None:
    assert request(*lines, first=first).keep_alive is keeps


def test_http_1_0_needs_no_host() -> None:
    assert request(first=b"GET / HTTP/1.0", host=None).old


def test_http_1_0_cannot_expect() -> None:
    assert not request(b"Expect: 100-continue", first=b"GET / HTTP/1.0").expects
    assert request(b"Expect: 100-Continue").expects


def test_repeated_list_fields_are_joined() -> None:
    head = request(b"X-A: 1", b"Cookie: a=1", b"x-a: 2", b"cookie: b=2", b"Accept: x")
    assert head.headers["x-a"] == "1, 2"
    assert head.headers["cookie"] == "a=1; b=2"


def test_bytes_above_ascii_stay_as_they_are() -> None:
    assert request(b"X-A: \xc3\xa4").headers["x-a"] == "\xc3\xa4"


def test_leading_zeros_of_a_length_are_digits_too() -> None:
    assert request(b"Content-Length: 007").length == 7


def test_limits_are_inclusive() -> None:
    limits = Limits(request_line_bytes=20, header_line_bytes=10, headers_bytes=24, headers=2)
    raw = b"GET /56789012345 HTTP/1.1\r\n"[:6] + b"7890 HTTP/1.1\r\nHost: a890\r\nX-B: 67890\r\n\r\n"
    assert len(raw.split(b"\r\n")[0]) == 19
    assert heads.request(raw, limits).headers == {"host": "a890", "x-b": "67890"}
    with pytest.raises(CallError):
        heads.request(raw.replace(b"67890", b"678901"), limits)
    with pytest.raises(CallError):
        heads.request(raw.replace(b"X-B", b"A:\r\nX-B"), limits)


@pytest.mark.parametrize(
    ("first", "lines", "bodyless", "length", "keeps"),
    [
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5",), False, 5, True),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: chunked",), False, heads.CHUNKED, True),
        (b"HTTP/1.1 200 OK", (), False, heads.UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK", (b"Content-Length: 5",), False, 5, False),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5", b"Connection: close"), False, 5, False),
        (b"HTTP/1.1 204 No Content", (), False, 0, True),
        (b"HTTP/1.1 304 Not Modified", (b"Content-Length: 5",), False, 0, True),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5",), True, 0, True),
        (b"HTTP/1.1 200", (b"Content-Length: 0",), False, 0, True),
        (b"HTTP/1.1 200 ", (b"Content-Length: 0",), False, 0, True),
        (b"HTTP/1.1 299 Odd \xe4", (b"Content-Length: 0",), False, 0, True),
    ],
)
def test_an_answer_is_framed_by_its_head(first: bytes, lines: tuple[bytes, ...], bodyless: bool, length: int, keeps: bool) -> None:
    head = answer(*lines, first=first, bodyless=bodyless)
    assert (head.length, head.keep_alive) == (length, keeps)


GOOD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-A: b\r\n\r\n"


@given(st.integers(0, len(GOOD) - 1))
def test_no_beginning_of_a_good_head_is_refused(cut: int) -> None:
    heads.unfinished(GOOD[:cut], LIMITS)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_means_the_same_to_every_reader(place: int, byte: int) -> None:
    raw = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    end = raw.find(heads.END)
    if end < 0:
        return
    try:
        head = heads.request(raw[: end + 4], LIMITS)
    except CallError:
        return
    lines = raw[: end + 2].split(b"\r\n")
    assert len(lines) - 2 == len(head.headers)
    assert all(b"\r" not in line and b"\n" not in line and b"\0" not in line for line in lines)
    assert head.path.startswith("/")


LINE = st.sampled_from((b"X-A: b", b"Content-Length: %d", b"content-length:%d\t", b"X-Content-Length: %d", b"Expect: 100-continue"))


def facts(found: heads.RequestHead) -> list[object]:
    return [getattr(found, name) for name in "raw size method path query headers length keep_alive old expects most".split()]


@given(st.lists(LINE, max_size=4), st.integers(0, 99_999), st.integers(0, 99_999), st.integers(0, 400), st.binary(max_size=2))
def test_a_resized_head_is_what_a_parse_would_give(lines: list[bytes], old: int, new: int, place: int, noise: bytes) -> None:
    limits = Limits(body_bytes=50_000)

    def head(length: int) -> bytes:
        filled = [line % length if b"%d" in line else line for line in lines]
        return b"\r\n".join((b"POST /v1/x HTTP/1.1", b"Host: a", *filled, b"", b""))

    try:
        first = heads.request(head(old), limits)
    except CallError:
        return
    raw = head(new)
    for data in (raw, raw[:place] + noise + raw[place + len(noise) :]):
        again = first.before and heads.resized(first, b"xyz" + data + b"rest", 3, limits)
        if again:
            assert again.raw == data[: len(again.raw)]
            fresh = heads.request(again.raw, limits)
            assert facts(again) == facts(fresh)


def test_a_head_that_differs_in_its_length_only_is_resized() -> None:
    first = request(b"Content-Length: 120", b"X-A: b")
    again = heads.resized(first, first.raw.replace(b"120", b"7") + b"1234567", 0, LIMITS)
    assert again is not None
    assert (again.length, again.size, again.headers["content-length"]) == (7, len(again.raw) + 7, "7")
    assert heads.resized(first, first.raw.replace(b"120", b"7"), 0, Limits(body_bytes=6)) is None
    for digits in (b"1200", b"-1", b"1 2", b"", b"+12", b"0x1"):
        assert heads.resized(first, first.raw.replace(b"120", digits), 0, LIMITS) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for parse in (lambda: heads.request(raw + heads.END, LIMITS), lambda: heads.answer(raw + heads.END, LIMITS, False)):
        with suppress(CallError):
            parse()
