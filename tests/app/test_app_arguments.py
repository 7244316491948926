"""A wrong argument of a public name fails where it is given, and names what would be right."""

from __future__ import annotations

import inspect
import ipaddress
from datetime import timedelta

import pytest
from fastapi import FastAPI

import lapse
from lapse import (
    ArtifactSweeper,
    Authentication,
    Bounds,
    Feed,
    HeaderAuthenticator,
    HeaderOptions,
    JwtOptions,
    Lapse,
    LapseSessionService,
    Quotas,
    RunLimits,
    SessionKey,
    Settings,
    Targets,
    TokenAuthenticator,
    TtlPolicy,
    bounded,
    mount,
    session_service,
    store_from_url,
)
from lapse.core.errors import InvalidValueError
from lapse.core.keys import check_key

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

URL = "sqlite:///:memory:"

NOT_CALLED = {
    "Authenticator": "a protocol",
    "Change": "Lapse makes it",
    "Expiries": "Lapse makes it",
    "Lifecycle": "Lapse makes it",
    "LapseError": "an error",
    "NotAuthenticatedError": "an error",
    "Policy": "an enum refuses other values itself",
    "Role": "an enum refuses other values itself",
    "Status": "an enum refuses other values itself",
    "Principal": "an authenticator makes one for each request, and what it makes is checked there",
    "Settings": "pydantic checks it",
    "SessionKey": "a tuple, made for each request; whatever takes one checks it",
    "current_principal": "it takes nothing",
}
"""Public names whose arguments are not checked by type, with the reason."""

EXEMPT = {
    "keys": "a protocol with one private method's name",
    "used_by": "UsedByRule.parse refuses what is no rule",
    "apps": "any object with `in` will do; see tests/web",
}

NEEDED = {
    "ArtifactSweeper": lambda: {"database": store_from_url(URL), "artifacts": Artifacts()},
    "Authentication": lambda: {"authenticator": HeaderAuthenticator(HEADER)},
    "HeaderAuthenticator": lambda: {"options": HEADER},
    "HeaderOptions": lambda: {"header": "X", "proxies": HEADER.proxies},
    "JwtOptions": lambda: {"issuer": "i", "audiences": ("a",)},
    "LapseSessionService": lambda: {"store": store_from_url(URL)},
    "TokenAuthenticator": lambda: {"options": JwtOptions("i", ("a",), ("HS256",), "s" * 64)},
    "TtlPolicy": lambda: {"store": store_from_url(URL), "feed": Feed(), "targets": Targets()},
    "mount": lambda: {"app": FastAPI(), "service": LapseSessionService(store_from_url(URL))},
    "store_from_url": lambda: {"url": URL},
    "Lapse": lambda: {"store_url": URL},
}
HEADER = HeaderOptions("X-User", (ipaddress.ip_network("10.0.0.0/8"),))


class Artifacts:
    """All that a sweeper asks of an artifact service."""

    async def list_artifact_keys(self, **_): ...
    async def list_artifact_versions(self, **_): ...
    async def delete_artifact(self, **_): ...


def arguments_of(called):
    """Yield the names of the arguments that may be given by name."""
    for name, one in inspect.signature(called).parameters.items():
        if one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL} and name not in EXEMPT:
            yield name


CASES = [
    (name, argument)
    for name in sorted(set(lapse.__all__) - NOT_CALLED.keys())
    for argument in arguments_of(getattr(lapse, name))
]


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_every_public_name_refuses_an_argument_of_a_wrong_type_by_its_name(name, argument):
    """It covers what becomes public later, too.

    Seen to fail with the fields of `RunLimits` unchecked.
    """
    given = NEEDED.get(name, dict)() | {argument: object()}
    with pytest.raises(ValueError, match=rf"^{argument}: must be .*, not an? ") as caught:
        getattr(lapse, name)(**given)
    assert isinstance(caught.value, InvalidValueError)


def test_the_methods_of_lapse_refuse_arguments_of_a_wrong_type_by_their_names():
    whole = Lapse(URL, Settings())
    for method, needed in ((whole.mount, {"app": FastAPI()}), (whole.app, {})):
        for argument in arguments_of(method):
            with pytest.raises(InvalidValueError, match=f"^{argument}: must be"):
                method(**needed | {argument: object()})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: LapseSessionService("sqlite:///x.db"),
            "store: must be a store, such as store_from_url('sqlite:///chats.db'), not a str",
        ),
        (
            lambda: LapseSessionService(store_from_url(URL), ttl=5),
            "ttl: must be a timedelta, such as timedelta(minutes=5), not 5",
        ),
        (
            lambda: mount(LapseSessionService(store_from_url(URL)), FastAPI()),
            "service: must be a LapseSessionService, not a FastAPI",
        ),
        (lambda: RunLimits(duration=600), "duration: must be a timedelta, such as"),
        (lambda: RunLimits(queue=True), "queue: must be a whole number, not True"),
        (lambda: Quotas(creates=2.5), "creates: must be a whole number or None, not 2.5"),
        (lambda: bounded(5), "bounds: must be a Bounds, not 5"),
        (lambda: bounded(Bounds(body="x")), "body: must be a whole number, not a str"),
        (
            lambda: JwtOptions("i", "audience"),
            "audiences: must be a tuple of a text, not a str",
        ),
        (
            lambda: JwtOptions("i", ("a", 5)),
            "audiences: must be a tuple of a text, not a tuple",
        ),
        (
            lambda: Authentication(HeaderAuthenticator(HEADER), open_paths="/docs"),
            "open_paths: must be a Collection of a text, not a str",
        ),
        (lambda: Lapse(store_from_url(URL)), "store_url: must be a text or None, not a Sqlite"),
        (lambda: session_service(None), "uri: must be a text, not None"),
        (lambda: check_key(SessionKey("app", 5, "s")), "user id: must be a text, not 5"),
        (lambda: JwtOptions("i", ("a",), key=b"secret"), "key: must be a text or None, not a"),
        (lambda: ArtifactSweeper(store_from_url(URL), URL), "artifacts: must be an Artifact"),
        (lambda: TokenAuthenticator("secret"), "options: must be a JwtOptions, not a str"),
        (lambda: TtlPolicy(store_from_url(URL), Feed(), timedelta(0)), "targets: must be a Tar"),
    ],
)
def test_the_refusal_names_the_argument_and_the_way_out_and_no_text_that_was_given(call, says):
    with pytest.raises(InvalidValueError) as caught:
        call()
    assert str(caught.value).startswith(says)
    assert "secret" not in str(caught.value)


def test_what_fits_is_taken():
    assert RunLimits(per_user=3, duration=timedelta(seconds=1)).per_user == 3
    assert Targets(soft=1, hard=0, design_effect=2).design_effect == 2
    assert Authentication(HeaderAuthenticator(HEADER), open_paths={"/docs"}).open_paths
