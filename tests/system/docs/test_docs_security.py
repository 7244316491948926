"""The programs in the page about security, run as printed."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI

from lapse.core.clock import utc_now

PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text("utf-8")
SESSIONS = "/apps/shop/users/{}/sessions/s/lifecycle"


def program(mark: str) -> str:
    (found,) = re.findall(rf"<!-- {mark} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    return found


def client_of(app: FastAPI, **options: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def asked(app: FastAPI, service: object, **credentials: object) -> list[int]:
    """Return what Ada is answered about her session, another's, and without credentials."""
    async with (
        app.router.lifespan_context(app),
        client_of(app, **credentials) as ada,
        client_of(app) as anybody,
    ):
        for user in ("ada", "eve"):
            await service.create_session(app_name="shop", user_id=user, session_id="s")
        return [
            (await ada.get(SESSIONS.format("ada"))).status_code,
            (await ada.get(SESSIONS.format("eve"))).status_code,
            (await anybody.get(SESSIONS.format("ada"))).status_code,
        ]


async def test_tokens_protect_the_routes_of_the_first_program(tmp_path: Path):
    """Seen to fail with the program of before, which imported neither options nor authenticator."""
    issuer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = issuer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "issuer.pem").write_bytes(pem)
    names: dict[str, object] = {}
    exec(program("protected"), names)
    expires = utc_now() + timedelta(minutes=5)
    claims = {"iss": "https://login.example.org/", "aud": "chat", "sub": "ada", "exp": expires}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, issuer, 'RS256')}"}
    app, lapse = names["app"], names["lapse"]
    async with client_of(app, headers=headers) as ada:
        assert (await ada.get("/me")).json() == "ada"
    assert await asked(app, lapse.sessions, headers=headers) == [200, 404, 401]


async def test_an_authenticator_of_ones_own_protects_the_routes_of_the_second_program():
    names: dict[str, object] = {}
    exec(program("own"), names)
    app = FastAPI()
    names["protect"](app, {"secret": "ada"})
    service = app.state.lapse.sessions
    assert await asked(app, service, cookies={"login": "secret"}) == [200, 404, 401]
