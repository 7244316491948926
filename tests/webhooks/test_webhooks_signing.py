"""What a request to the webhook says, and that it is verified as docs/webhooks.md tells."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends import DUE, T0, key
from lapse.core.errors import SettingsError
from lapse.settings import load_settings
from lapse.webhooks.rules import Event, EventKind, headers_of, read_secret, signature

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
DAY = timedelta(days=1)


def event(kind=EventKind.EXPIRED, **more):
    told = {"at": DUE, "created_at": T0, "happens": T0 + DAY, "amount": 0, "reason": ""} | more
    return Event(1, "a" * 32, kind, key(), attempts=1, **told)


def is_from_lapse():
    """Return the function that the page gives to its readers."""
    (code,) = re.findall(r"<!-- verify -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(code, found)
    return found["is_from_lapse"]


def test_the_pages_function_takes_what_was_signed_and_nothing_else():
    """Seen to fail with a signature over the body alone."""
    verify, now = is_from_lapse(), datetime.now(UTC)
    body = event().body
    headers = headers_of(event(), event().body, (read_secret(SECRET),), now)
    assert verify(headers, body, SECRET)
    assert not verify(headers, body + b" ", SECRET)
    assert not verify(headers, body, OTHER)
    assert not verify(headers | {"webhook-id": "msg_b"}, body, SECRET)
    late = headers_of(event(), event().body, (read_secret(SECRET),), now - timedelta(minutes=6))
    assert not verify(late, body, SECRET)
    moved = late | {"webhook-timestamp": headers["webhook-timestamp"]}
    assert not verify(moved, body, SECRET)


def test_while_a_secret_is_replaced_either_verifies():
    headers = headers_of(
        event(), event().body, (read_secret(SECRET), read_secret(OTHER)), datetime.now(UTC)
    )
    for secret in (SECRET, OTHER):
        assert is_from_lapse()(headers, event().body, secret)


def test_a_known_signature():
    """The example that Standard Webhooks publishes, so that its libraries verify Lapse's, too.

    Seen to fail with the id left out of what is signed.
    """
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert secret is not None
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_header_has_that_signature_of_the_body():
    """Seen to fail with a header that signs another body."""
    now = datetime.now(UTC)
    secrets = (read_secret(SECRET), read_secret(OTHER))
    headers = headers_of(event(), b"{}", secrets, now)
    name, moment = headers["webhook-id"], headers["webhook-timestamp"]
    expected = [signature(secret, name, moment, b"{}") for secret in secrets]
    assert headers["webhook-signature"].split(" ") == expected


@pytest.mark.parametrize(
    ("told", "data"),
    [
        (
            event(),
            {"expiredAt": "2030-01-01T12:30:00.000000Z", "resurrections": 0}
            | {"restorableUntil": "2030-01-02T12:00:00.000000Z"},
        ),
        (
            event(EventKind.RESURRECTED, happens=None, amount=2),
            {"resurrectedAt": "2030-01-01T12:30:00.000000Z", "resurrections": 2}
            | {"expiresAt": None},
        ),
    ],
)
def test_the_body_of_a_sessions_event(told, data):
    body = json.loads(told.body)
    assert body.pop("data") == data | {
        "appName": "app",
        "userId": "ann",
        "sessionId": "s1",
        "createdAt": "2030-01-01T12:00:00.000000Z",
    }
    assert body == {"type": str(told.kind), "timestamp": "2030-01-01T12:30:00.000000Z"}


def test_the_page_describes_each_event_with_the_names_of_its_data():
    """Seen to fail with `restorableUntil` left out of the page."""
    rows = dict(re.findall(r"^\| `([a-z.]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    for kind in EventKind:
        names = json.loads(event(kind).body)["data"].keys()
        described = set(re.findall(r"`(\w+)`", rows[kind])) - {"share", "clock"}
        assert described == names, kind


def test_the_example_on_the_page_is_a_body():
    (example,) = re.findall(r"```json\n(.*?)\n```", PAGE)
    body = json.loads(example)
    assert body.keys() == json.loads(event().body).keys()
    assert body["data"].keys() == json.loads(event().body)["data"].keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LAPSE_WEBHOOK_URL": "https://a.test/x"}, "LAPSE_WEBHOOK_SECRET"),
        ({"LAPSE_WEBHOOK_URL": "ftp://a.test/x"}, "LAPSE_WEBHOOK_URL"),
        ({"LAPSE_WEBHOOK_URL": "https:///x"}, "LAPSE_WEBHOOK_URL"),
        ({"LAPSE_WEBHOOK_URL": "file:///etc/passwd"}, "LAPSE_WEBHOOK_URL"),
        ({"LAPSE_WEBHOOK_URL": "https://a.test:x/"}, "LAPSE_WEBHOOK_URL"),
        ({"LAPSE_WEBHOOK_SECRET": "whsec_c2hvcnQ="}, "LAPSE_WEBHOOK_SECRET"),
        ({"LAPSE_WEBHOOK_SECRET": SECRET[6:]}, "LAPSE_WEBHOOK_SECRET"),
        ({"LAPSE_WEBHOOK_SECRET": ",".join([SECRET] * 3)}, "LAPSE_WEBHOOK_SECRET"),
    ],
)
def test_a_wrong_setting_is_refused_and_not_shown(monkeypatch, tmp_path, given, said):
    """Seen to fail with a problem that quotes the URL."""
    monkeypatch.chdir(tmp_path)
    whole = {"LAPSE_WEBHOOK_URL": "https://a.test/token"} | given
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert said in str(caught.value)
    for value in given.values():
        assert value not in str(caught.value)


def test_the_settings_show_neither_url_nor_secret(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAPSE_WEBHOOK_URL", "https://a.test/token-of-the-url")
    monkeypatch.setenv("LAPSE_WEBHOOK_SECRET", f"{SECRET}, {OTHER}")
    settings = load_settings()
    assert settings.webhook is not None
    assert len(settings.webhook.secrets) == 2
    shown = repr(settings) + repr(settings.webhook)
    assert "token-of-the-url" not in shown
    assert SECRET[6:] not in shown
    assert "kkkk" not in shown
