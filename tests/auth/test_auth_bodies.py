"""Who asks is known before what they say is read: bodies of strangers hold nothing."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from tokens import bearer

from wire import Wire, request

MIB = 1024 * 1024
LARGEST = 20 * MIB
SMALL = 64 * 1024


@pytest.fixture
def post(token_server, issuer):
    """Return a function that begins a POST as a user, or as nobody, and sends no body yet."""
    with ExitStack() as stack:

        def begin(user=None, length=LARGEST, path="/run", *headers):
            lines = [*headers, b"Content-Length: %d" % length, b"Content-Type: application/json"]
            if user is not None:
                lines.append(
                    f"Authorization: {bearer(issuer.token(user))['Authorization']}".encode()
                )
            wire = stack.enter_context(Wire(token_server))
            wire.send(request("POST", path, b"", *lines))
            return wire

        yield begin


@pytest.mark.parametrize(
    "path", ["/run", "/run_sse", "/apps/parrot/users/ann/sessions", "/nowhere"]
)
def test_nobody_is_refused_before_a_byte_of_the_body_is_read(post, path):
    """Seen to fail with the body read in front of the caller: it waits for LAPSE_BODY_SECONDS."""
    wire = post(path=path)
    answer = wire.answer()
    assert (answer.status, answer.closed) == (401, True)
    assert answer.headers["connection"] == "close"
    assert answer.headers["www-authenticate"].startswith('bearer realm="lapse"')


def test_nobody_who_waits_to_be_asked_for_the_body_is_not_asked(post):
    """Seen to fail with a look at what has come of the body: uvicorn asks for it."""
    wire = post(None, LARGEST, "/run", b"Expect: 100-continue")
    assert wire.answer().status == 401


def test_nobody_whose_body_is_here_keeps_the_connection(post):
    wire = post(length=2)
    wire.send(b"{}")
    wire.answer()
    wire = post(length=0)
    assert (wire.answer().status, wire.received) == (401, b"")
    wire.send(request("GET", "/livez"))
    assert wire.answer().status == 200


@pytest.mark.parametrize("user", ["bob", "ann"])
def test_what_the_head_tells_is_refused_without_the_body(post, user):
    """Whose the path is, and for which role: 404 and 403 as ever."""
    path = "/apps/parrot/users/carol/sessions" if user == "bob" else "/dev/apps/parrot/eval-sets"
    answer = post(user, LARGEST, path).answer()
    assert (answer.status, answer.closed) == ({"bob": 404, "ann": 403}[user], True)


def test_bodies_of_strangers_keep_nobody_from_posting(post, token_server, issuer):
    """16 of them, as found. Seen to fail as the first of these tests."""
    strangers = [post() for _ in range(16)]
    for wire in strangers:
        wire.send(b" " * MIB)
    answer = token_server.client.post(
        "/apps/parrot/users/ann/sessions", json={}, headers=bearer(issuer.token("ann"))
    )
    assert answer.status_code == 200
    assert {wire.answer().status for wire in strangers} == {401}


def test_bodies_of_one_user_keep_no_other_from_posting(post, token_server, issuer):
    """Seen to fail with all of them counted for one caller."""
    filling = [post("bob") for _ in range(5)]
    for wire in filling:
        for _ in range(19):
            wire.send(b" " * MIB)
    small = post("bob", SMALL, "/run")
    small.send(b" " * SMALL)
    assert small.answer().status == 422  # no JSON: it was read
    said = {"parts": [{"text": "x" * MIB}]}
    body = {"appName": "parrot", "userId": "ann", "sessionId": "none", "newMessage": said}
    anns = token_server.client.post("/run", json=body, headers=bearer(issuer.token("ann")))
    assert anns.status_code == 404  # no such session: it was read
    for wire in filling:
        wire.send(b" " * MIB)
    answers = [wire.answer() for wire in filling]
    assert sorted(answer.status for answer in answers) == [422] * 4 + [429]
    (refused,) = (answer for answer in answers if answer.status == 429)
    assert (refused.headers["retry-after"], refused.closed) == ("1", True)
    again = post("bob", MIB)
    again.send(b" " * MIB)
    assert again.answer().status == 422
