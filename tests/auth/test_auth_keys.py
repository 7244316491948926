"""Keys that an issuer publishes, on a real server, and changes."""

import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from jwt.utils import base64url_encode
from starlette.requests import HTTPConnection
from tokens import AUDIENCE, ISSUER, Issuer

from lapse.auth import TokenAuthenticator
from lapse.auth.keys import PublishedKeys
from lapse.auth.options import JwtOptions, NotAuthenticatedError
from lapse.auth.principals import Principal

FIRST, SECOND, THIRD = Issuer(kid="1"), Issuer(kid="2"), Issuer("RS256", kid="3")
NOTHING = timedelta(0)
LONG = timedelta(hours=1)


class Published:
    """What the server answers, and how often it was asked."""

    def __init__(self):
        self.status = 200
        self.asked = 0
        self.body = b""
        self.more = {}

    def keys(self, *issuers, **more):
        self.body = json.dumps({"keys": [one.jwk | more for one in issuers]}).encode()


@pytest.fixture
def published():
    told = Published()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            told.asked += 1
            self.send_response(told.status)
            for name, value in told.more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_):
            pass

    with _serving(Handler) as told.url:
        yield told


@contextmanager
def _serving(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def accepts(published):
    """Return a function that says whose token it is, with keys that are kept as told."""

    def made(*, fresh=LONG, pause=NOTHING, algorithms=("ES256", "RS256")):
        keys = PublishedKeys(published.url, fresh=fresh, pause=pause)
        options = JwtOptions(ISSUER, (AUDIENCE,), algorithms, jwks_url=published.url)
        authenticator = TokenAuthenticator(options, keys)

        async def accept(token):
            headers = [(b"authorization", f"Bearer {token}".encode())]
            return await authenticator.authenticate(
                HTTPConnection({"type": "http", "headers": headers})
            )

        return accept

    return made


async def refused(accept, token):
    with pytest.raises(NotAuthenticatedError) as caught:
        await accept(token)
    return str(caught.value)


async def test_keys_are_read_again_if_a_token_names_an_unknown_one_and_old_ones_are_forgotten(
    published, accepts
):
    """Seen to fail: no reading again for an unknown id."""
    accept = accepts()
    published.keys(FIRST)
    assert await accept(FIRST.token()) == Principal("ann")
    assert await accept(FIRST.token()) == Principal("ann")
    assert published.asked == 1
    published.keys(SECOND, THIRD)
    assert await accept(SECOND.token()) == Principal("ann")
    assert await accept(THIRD.token()) == Principal("ann")
    assert published.asked == 2
    assert await refused(accept, FIRST.token()) == "the token is not valid"


async def test_a_withdrawn_key_is_accepted_only_until_the_cached_keys_are_old(published, accepts):
    accept = accepts(fresh=NOTHING)
    published.keys(FIRST, SECOND)
    assert await accept(FIRST.token()) == Principal("ann")
    published.keys(SECOND)
    await refused(accept, FIRST.token())


async def test_invented_key_ids_do_not_cause_request_after_request_for_keys(published, accepts):
    """Seen to fail: no pause between two questions."""
    accept = accepts(pause=LONG)
    published.keys(FIRST)
    for number in range(50):
        await refused(accept, _with_kid(f"k{number}"))
    assert published.asked == 1
    assert await accept(FIRST.token()) == Principal("ann")


def _with_kid(kid):
    return jwt.encode({}, FIRST.private, "ES256", {"kid": kid})


async def test_the_last_good_keys_are_used_while_the_url_is_down(published, accepts):
    """Seen to fail: keys dropped when they cannot be read again."""
    accept = accepts(fresh=NOTHING)
    published.keys(FIRST)
    assert await accept(FIRST.token()) == Principal("ann")
    for status, body in ((503, b""), (200, b"<html>"), (200, b"{}"), (200, b'{"keys": []}')):
        published.status, published.body = status, body
        assert await accept(FIRST.token()) == Principal("ann")
        await refused(accept, SECOND.token())


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b""), (200, b"<html>"), (200, b"[]"), (200, b"x" * 600_000), (302, b""), (200, b"\xff")],
)
async def test_nobody_is_accepted_if_no_keys_were_ever_read(published, accepts, status, body):
    accept = accepts()
    published.status, published.body = status, body
    published.more = {"Location": published.url}
    assert await refused(accept, FIRST.token()) == "tokens cannot be verified now"
    assert published.asked == 1
    published.status, published.more = 200, {}
    published.keys(FIRST)
    assert await accept(FIRST.token()) == Principal("ann")


async def test_a_key_server_that_never_answers_delays_a_request_by_a_bounded_time(
    accepts, published, monkeypatch
):
    let_go = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self):
            let_go.wait(30)

    monkeypatch.setattr("lapse.auth.keys._TIMEOUT", timedelta(seconds=0.2))
    with _serving(Silent) as published.url:
        accept = accepts()
        assert await refused(accept, FIRST.token()) == "tokens cannot be verified now"
        let_go.set()


async def test_only_public_keys_for_signatures_are_accepted(published, accepts):
    """Seen to fail: a symmetric key taken, and then one for encryption."""
    accept = accepts(algorithms=("ES256", "HS256"))
    text = "secret-secret-secret-secret-secret"
    secret = {"kty": "oct", "kid": "1", "k": base64url_encode(text.encode()).decode()}
    odd = {"kty": "XYZ", "kid": "odd"}
    published.body = json.dumps({"keys": [secret, odd, 7, SECOND.jwk]}).encode()
    claims = jwt.decode(SECOND.token(), options={"verify_signature": False})
    await refused(accept, jwt.encode(claims, text, "HS256", {"kid": "1"}))
    assert await accept(SECOND.token()) == Principal("ann")
    published.keys(FIRST, use="enc")
    await refused(accept, FIRST.token())


async def test_a_key_verifies_tokens_of_its_own_algorithm_only(published, accepts):
    """Seen to fail: `fits` always true, for the last one."""
    accept = accepts()
    published.keys(THIRD)
    assert await accept(THIRD.token()) == Principal("ann")
    other = Issuer("ES256", kid="3")
    await refused(accept, other.token())
    bound = Issuer("RS256", kid="4")
    published.keys(bound, alg="RS512")
    await refused(accept, bound.token())


async def test_a_token_without_a_key_id_is_accepted_if_there_is_one_key(published, accepts):
    accept = accepts(fresh=NOTHING)
    published.keys(FIRST)
    without = jwt.encode(
        jwt.decode(FIRST.token(), options={"verify_signature": False}), FIRST.private, "ES256"
    )
    assert await accept(without) == Principal("ann")
    published.keys(FIRST, SECOND)
    await refused(accept, without)
