"""The outermost middleware: heads that are refused, and answers before the body has arrived."""

from __future__ import annotations

import pytest
from layers import Asked

from lapse.limits.head import HeadMiddleware

UNKNOWN = {"type": "http.response.start", "status": 401, "headers": [(b"connection", b"x")]}


async def refusing(scope, receive, send):
    """Answer without looking at the body."""
    await send(UNKNOWN)
    await send({"type": "http.response.body", "body": b'"no"'})


async def test_an_answer_before_the_body_closes_the_connection_and_drops_the_rest():
    """Seen to fail with the answer passed on as it is: no `Connection: close`."""
    request = Asked(HeadMiddleware(refusing))
    request.arrive(b"x" * 10)
    await request.settled()
    request.arrive(b"y" * 10, more=False)
    assert await request.answer() == (401, "no")
    assert request.headers[b"connection"] == b"close"
    assert request.received == 2
    # The answer was complete before the rest was waited for; only then the server closes.
    assert [one.get("more_body") for one in request.sent] == [None, True, False]


async def test_a_sender_that_is_slow_is_not_waited_for():
    """Seen to fail without the time-out between two chunks: it waits for the test's own."""
    request = Asked(HeadMiddleware(refusing))
    request.arrive(b"x")
    assert await request.answer() == (401, "no")


async def test_where_all_of_the_body_is_here_the_connection_stays():
    """Seen to fail with the connection closed whenever the body was not read."""
    request = Asked(HeadMiddleware(refusing))
    request.arrive(b"x")
    request.arrive(b"y", more=False)
    assert await request.answer() == (401, "no")
    assert request.headers[b"connection"] == b"x"


async def test_a_body_that_waits_to_be_asked_for_is_not_asked_for():
    """Seen to fail with the look at what has come: a server answers it with `100 Continue`."""
    request = Asked(HeadMiddleware(refusing), headers=[(b"expect", b"100-continue")])
    request.arrive(b"x", more=False)
    assert await request.answer() == (401, "no")
    assert request.received_before_answer == 0
    assert request.headers[b"connection"] == b"close"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-type", b"multipart/x")], 400),
        ([(b"content-type", b"application/json")], 400),
        ([(b"x", b"y")] * 99, 431),
        ([(b"x", b"y" * 65_536)], 431),
    ],
)
async def test_a_head_that_is_ambiguous_or_too_large_is_refused(headers, status):
    """Seen to fail with the count of Content-Type left out: the last of them counted."""
    request = Asked(HeadMiddleware(refusing), headers=headers)
    request.arrive(b"{}", more=False)
    answered, told = await request.answer()
    assert answered == status
    assert told["detail"].startswith("headers: ")
