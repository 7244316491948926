"""Which origins are the server's own, and which lists of origins let everybody in."""

import pytest
from starlette.requests import HTTPConnection

from lapse import Lapse, Settings
from lapse.auth.origins import check_origins, is_own_origin
from lapse.core.errors import InvalidValueError
from serving import AGENTS, lapse

PAGE = "https://chat.test"


def connection(*headers, scheme="http"):
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return HTTPConnection({"type": "http", "scheme": scheme, "headers": encoded})


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        (connection(("host", "chat.test")), {"http://chat.test", "https://chat.test"}),
        (connection(("host", "chat.test"), scheme="https"), {"https://chat.test"}),
        (connection(("host", "chat.test"), scheme="wss"), {"https://chat.test"}),
        (
            connection(("host", "chat.test"), ("x-forwarded-proto", "HTTPS, http")),
            {"https://chat.test"},
        ),
        (connection(), set()),
        (connection(("host", "chat.test"), ("host", "chat.test")), set()),
    ],
)
def test_a_page_is_the_servers_own_by_name_and_scheme(asked, own):
    """Seen to fail with the scheme left out, and with the first of two hosts taken."""
    pages = ("http://chat.test", "https://chat.test", "https://chat.test:444", "null", "", "://")
    assert {page for page in pages if is_own_origin(page, asked)} == own


EVERYBODY = ["*", "null", "regex:.*", "regex:https?://.+", "regex:https://chat.test|.*"]
SOMEBODY = [PAGE, "regex:https://.*[.]chat[.]test", "regex:https://(a|b)[.]test:[0-9]+"]


@pytest.mark.parametrize("origin", EVERYBODY)
def test_origins_of_everybody_are_refused_with_authentication(origin):
    with pytest.raises(InvalidValueError, match="every website") as caught:
        check_origins([PAGE, origin])
    assert repr(origin) in str(caught.value)


def test_origins_of_ones_own_pages_are_accepted_and_a_bad_pattern_is_not():
    check_origins(SOMEBODY)
    with pytest.raises(InvalidValueError, match="no pattern"):
        check_origins(["regex:("])


def test_an_application_with_authentication_is_not_made_for_pages_of_everybody():
    """Seen to fail without the check: the answer says that any page may read it."""
    known = Settings(
        auth="jwt", jwt_key="k" * 32, jwt_algorithms="HS256", jwt_issuer="i", jwt_audience="a"
    )
    for settings in (known, Settings()):
        made = Lapse("sqlite:///:memory:", settings)
        if settings is known:
            with pytest.raises(InvalidValueError, match="every website"):
                made.app(AGENTS, allow_origins=["*"])
        else:
            assert made.app(AGENTS, allow_origins=["*"]) is not None


def test_the_server_does_not_start_with_authentication_for_pages_of_everybody(tmp_path):
    settings = {
        "LAPSE_AUTH": "header",
        "LAPSE_AUTH_HEADER": "X-User",
        "LAPSE_AUTH_PROXIES": "127.0.0.1",
    }
    done = lapse(tmp_path, "serve", "--allow-origins", "*", **settings)
    assert done.returncode == 1
    assert done.stderr.startswith("lapse: --allow-origins: '*' lets every website read")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "lapse.db").exists()
