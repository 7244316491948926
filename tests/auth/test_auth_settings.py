"""The settings of authentication: which are accepted, and how others are refused."""

import os
from datetime import timedelta

import pytest
from pydantic import SecretStr
from tokens import AUDIENCE, ISSUER, Issuer

from lapse.auth.addresses import parse_networks
from lapse.auth.options import AuthOptions, HeaderOptions, JwtOptions, RoleNames
from lapse.core.errors import SettingsError
from lapse.settings import load_settings

SECRET = "x" * 32
JWT = {
    "LAPSE_AUTH": "jwt",
    "LAPSE_JWT_ISSUER": ISSUER,
    "LAPSE_JWT_AUDIENCE": AUDIENCE,
    "LAPSE_JWT_JWKS_URL": "https://issuer.test/jwks.json",
}
HEADER = {"LAPSE_AUTH": "header", "LAPSE_AUTH_PROXIES": "10.0.0.0/8, 127.0.0.1"}


@pytest.fixture
def load(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith(("LAPSE_", "SESSION_CLEANUP_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def loaded(given):
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return loaded


def test_authentication_is_off_by_default(load):
    assert load({}).authentication == AuthOptions()


def test_the_settings_of_tokens_reach_the_options(load):
    assert load(JWT).authentication == AuthOptions(
        JwtOptions(ISSUER, (AUDIENCE,), jwks_url="https://issuer.test/jwks.json")
    )
    more = {
        "LAPSE_JWT_ALGORITHMS": "ES256, EdDSA",
        "LAPSE_JWT_AUDIENCE": "a,b",
        "LAPSE_JWT_USER_CLAIM": "email",
        "LAPSE_JWT_ROLE_CLAIM": "roles",
        "LAPSE_JWT_LEEWAY_SECONDS": "0",
        "LAPSE_JWT_COOKIE": "__Host-token",
        "LAPSE_SERVICE_ROLE": "svc",
        "LAPSE_OPERATOR_ROLE": "ops",
        "LAPSE_METRICS_OPEN": "true",
    }
    expected = JwtOptions(
        ISSUER,
        ("a", "b"),
        ("ES256", "EdDSA"),
        jwks_url="https://issuer.test/jwks.json",
        user_claim="email",
        role_claim="roles",
        roles=RoleNames("svc", "ops"),
        leeway=timedelta(0),
        cookie="__Host-token",
    )
    assert load(JWT | more).authentication == AuthOptions(expected, metrics_open=True)


def test_the_settings_of_a_header_reach_the_options(load):
    proxies = parse_networks(["10.0.0.0/8", "127.0.0.1"], field="")
    options = HeaderOptions("X-Forwarded-User", proxies)
    assert load(HEADER).authentication == AuthOptions(options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LAPSE_AUTH": "basic"}, "LAPSE_AUTH='basic'"),
        ({"LAPSE_AUTH_PROXIES": "10.0.0.1/8"}, "LAPSE_AUTH_PROXIES"),
        ({"LAPSE_AUTH_PROXIES": "0.0.0.0/0"}, "anybody could name any user"),
        ({"LAPSE_SERVICE_ROLE": "operator"}, "LAPSE_OPERATOR_ROLE"),
        (HEADER | {"LAPSE_AUTH_PROXIES": " "}, "LAPSE_AUTH_PROXIES: LAPSE_AUTH=header needs it"),
        (HEADER | {"LAPSE_AUTH_HEADER": "X User"}, "LAPSE_AUTH_HEADER"),
        (HEADER | {"LAPSE_AUTH_ROLE_HEADER": "x-forwarded-user"}, "LAPSE_AUTH_ROLE_HEADER"),
        (JWT | {"LAPSE_JWT_ISSUER": ""}, "LAPSE_JWT_ISSUER"),
        (JWT | {"LAPSE_JWT_AUDIENCE": ""}, "LAPSE_JWT_AUDIENCE"),
        (JWT | {"LAPSE_JWT_JWKS_URL": ""}, "either LAPSE_JWT_JWKS_URL or LAPSE_JWT_KEY"),
        (JWT | {"LAPSE_JWT_KEY": "x"}, "either LAPSE_JWT_JWKS_URL or LAPSE_JWT_KEY"),
        (JWT | {"LAPSE_JWT_JWKS_URL": "http://issuer.test/"}, "must be https://"),
        (JWT | {"LAPSE_JWT_JWKS_URL": "file:///etc/passwd"}, "must be https://"),
        (JWT | {"LAPSE_JWT_JWKS_URL": "http://127.0.0.1@evil.test/"}, "must be https://"),
        (JWT | {"LAPSE_JWT_ALGORITHMS": "none"}, "LAPSE_JWT_ALGORITHMS"),
        (JWT | {"LAPSE_JWT_ALGORITHMS": "RS256,none"}, "LAPSE_JWT_ALGORITHMS"),
        (JWT | {"LAPSE_JWT_ALGORITHMS": ","}, "LAPSE_JWT_ALGORITHMS"),
        (JWT | {"LAPSE_JWT_ALGORITHMS": "RS256,HS256"}, "must not mix"),
        (JWT | {"LAPSE_JWT_ALGORITHMS": "HS256"}, "needs LAPSE_JWT_KEY"),
        (JWT | {"LAPSE_JWT_LEEWAY_SECONDS": "301"}, "LAPSE_JWT_LEEWAY_SECONDS"),
        (JWT | {"LAPSE_JWT_LEEWAY_SECONDS": "-1"}, "LAPSE_JWT_LEEWAY_SECONDS"),
        (JWT | {"LAPSE_JWT_COOKIE": "a b"}, "LAPSE_JWT_COOKIE"),
        ({"LAPSE_METRICS_TOKEN": "short"}, "LAPSE_METRICS_TOKEN: must have at least 24"),
        ({"LAPSE_METRICS_TOKEN": "é" * 24}, "LAPSE_METRICS_TOKEN: must be printable ASCII"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(load, given, said):
    with pytest.raises(SettingsError) as caught:
        load(given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "algorithms", "said"),
    [
        (SECRET[1:], "HS256", "at least 32 bytes"),
        (SECRET, "HS512", "at least 64 bytes"),
        (SECRET, "RS256", "public key"),
        (Issuer("ES256").public_pem, "HS256", "is no secret"),
        ("-----BEGIN PRIVATE KEY-----", "ES256", "is a private key"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_and_not_shown(load, key, algorithms, said):
    given = JWT | {"LAPSE_JWT_KEY": key, "LAPSE_JWT_ALGORITHMS": algorithms}
    with pytest.raises(SettingsError) as caught:
        load(given | {"LAPSE_JWT_JWKS_URL": ""})
    assert said in str(caught.value)
    assert key not in str(caught.value)


def test_all_wrong_settings_are_reported_together(load):
    with pytest.raises(SettingsError) as caught:
        load({"LAPSE_AUTH": "jwt", "LAPSE_TTL_POLICY": "shadow", "LAPSE_RESTORE_HOURS": "0"})
    assert len(caught.value.problems) == 4


def test_the_repr_of_the_settings_shows_no_key(load):
    more = {"LAPSE_JWT_KEY": SECRET, "LAPSE_JWT_ALGORITHMS": "HS256", "LAPSE_JWT_JWKS_URL": ""}
    settings = load(JWT | more)
    assert settings.jwt_key == SecretStr(SECRET)
    assert SECRET not in repr(settings) + str(settings) + repr(settings.authentication)
    assert settings.authentication.by.key == SECRET


def test_a_metrics_token_is_not_shown(load):
    """Seen to fail with the field's `repr`."""
    settings = load(JWT | {"LAPSE_METRICS_TOKEN": SECRET})
    (token,) = settings.authentication.metrics_tokens
    assert token == SecretStr(SECRET)
    assert SECRET not in repr(settings) + repr(settings.authentication)
    with pytest.raises(SettingsError) as caught:
        load(JWT | {"LAPSE_METRICS_TOKEN": "not-so-secret"})
    assert "not-so-secret" not in str(caught.value)
