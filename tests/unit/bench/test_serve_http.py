"""What the load hears: events are the same however the bytes are cut, and each has the time of its last byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bench.serve.http import BadResponseError, Response, render_request

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x;name=value\r\n%b\r\n" % (len(data), data)


def heard(*parts: bytes) -> Response:
    response = Response()
    for at, part in enumerate(parts):
        response.feed(part, float(at))
    return response


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=6
    ),
    st.lists(st.integers(1, 400), max_size=20),
    st.integers(1, 40),
)
def test_events_do_not_depend_on_where_the_bytes_are_cut(
    texts: list[str], cuts: list[int], chunk_bytes: int
) -> None:
    body = b"".join(b": comment\n\ndata: %b\n\n" % text.encode() for text in texts)
    chunks = [chunk(body[at : at + chunk_bytes]) for at in range(0, len(body), chunk_bytes)]
    raw = STREAM_HEAD + b"".join(chunks) + b"0\r\n\r\n"
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    response = heard(*(raw[start:stop] for start, stop in pairwise(edges)))
    assert response.complete
    assert response.status == 200
    assert [event.data for event in response.events] == [text.encode() for text in texts]
    assert [event.at for event in response.events] == sorted(event.at for event in response.events)


def test_an_event_has_the_time_at_which_its_line_was_whole() -> None:
    response = heard(STREAM_HEAD, b"6\r\ndata: \r\n", b"4\r\nabc\n\r\n", b"1\r\n\n\r\n", b"0\r\n\r\n")
    assert response.events == [(2.0, b"abc")]
    assert response.complete


def test_a_body_of_known_length_ends_with_its_last_byte() -> None:
    head = b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\n"
    response = heard(head + b"he", b"llo")
    assert (response.status, bytes(response.body), response.complete) == (404, b"hello", True)


def test_a_body_of_unknown_length_ends_with_the_connection() -> None:
    response = heard(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n", b"he", b"llo")
    assert not response.complete
    response.end()
    assert response.complete
    assert bytes(response.body) == b"hello"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", id="half a head"),
        pytest.param(STREAM_HEAD + chunk(b"data: x\n\n"), id="no last chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", id="a byte short"),
    ],
)
def test_a_connection_that_ends_too_early_is_an_error(raw: bytes) -> None:
    response = Response()
    if raw:
        response.feed(raw, 0.0)
    with pytest.raises(BadResponseError):
        response.end()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SSH-2.0-x\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", id="an older HTTP"),
        pytest.param(STREAM_HEAD + b"zz\r\n", id="a length that is none"),
        pytest.param(STREAM_HEAD + b"-1\r\n", id="a negative length"),
        pytest.param(b"x" * 70_000, id="an endless head"),
    ],
)
def test_what_is_not_http_is_an_error(raw: bytes) -> None:
    with pytest.raises(BadResponseError):
        Response().feed(raw, 0.0)


def test_a_request_says_how_long_it_is() -> None:
    request = render_request("POST", "/v1/x", {"X-Session-Id": "a"}, b"{}")
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n") == [
        b"POST /v1/x HTTP/1.1",
        b"Host: bench",
        b"Connection: close",
        b"X-Session-Id: a",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]
