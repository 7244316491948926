"""Strings in everything that a server gets, which must not appear in logs and answers.

A new secret needs one line here: a setting in SETTINGS, a header in HEADERS, or a request in
`provoke`. The tests look for each of them in the logs, the answers and the list of processes.
"""

from __future__ import annotations

import contextlib
import json
import time

import jwt
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from wire import answer_to, request

PASSWORD = "canary-of-the-password"
ID = "session-canary-of-the-id"
"""A log may carry the first 8 characters."""
USER = "canary-of-the-user"
TEXT = "canary-of-the-text"
STATE = "canary-of-the-state"
METADATA = "canary-of-the-metadata"

KEY = "canary-of-the-signing-key-which-is-long-enough"
SETTINGS = {
    "LAPSE_AUTH": "jwt",
    "LAPSE_JWT_KEY": KEY,
    "LAPSE_JWT_ALGORITHMS": "HS256",
    "LAPSE_JWT_ISSUER": "https://issuer.test/",
    "LAPSE_JWT_AUDIENCE": "lapse-test",
    "LAPSE_JWT_ROLE_CLAIM": "role",
}
"""Settings of a server that authenticates its callers."""

HEADERS = {
    "Authorization": "Bearer canary-of-the-token",
    "Cookie": "session=canary-of-the-cookie",
    "X-Api-Key": "canary-of-the-key",
    "User-Agent": "canary-of-the-agent",
    "X-Forwarded-For": "canary-of-the-address",
    "Last-Event-ID": "canary-of-the-place",
}
FORGED = "\n2026-01-01T00:00:00Z [error    ] forged\x1b[31m\u2028\u202e\x85"
"""Text that would be a line of its own in a log."""


def bearer(role):
    """Return the header of a caller that a server with SETTINGS accepts."""
    issuer, audience = SETTINGS["LAPSE_JWT_ISSUER"], SETTINGS["LAPSE_JWT_AUDIENCE"]
    claims = {"sub": USER, "iss": issuer, "aud": audience, "role": role}
    token = jwt.encode(claims | {"exp": time.time() + 600}, KEY, "HS256")
    return {"Authorization": f"Bearer {token}"}


def message(app, session_id, text, **more):
    said = {"role": "user", "parts": [{"text": text}]}
    names = {"appName": app, "userId": USER, "sessionId": session_id}
    return names | {"newMessage": said} | more


def requests(app):
    """Yield requests to every part of a server, good and bad."""
    sessions = f"/apps/{app}/users/{USER}/sessions"
    one, record = f"{sessions}/{ID}", f"{sessions}/{ID}/lifecycle"
    new = {"sessionId": ID, "state": {"k": STATE}, "options": {"metadata": {"m": METADATA}}}
    for _ in range(2):
        yield "POST", sessions, new
    for wrong in ({"state": {"k": f"{STATE}\0"}}, {"options": {"ttl_minutes": STATE}}, [STATE]):
        yield "POST", sessions, wrong
    yield "POST", sessions, {"sessionId": ID + FORGED}
    yield "PATCH", record, {"metadata": {"m": METADATA}}
    yield "PATCH", record, {"ttlMinutes": METADATA}
    yield "PATCH", record, {METADATA: METADATA}
    yield "PATCH", one, {"stateDelta": {"k": STATE}}
    for text in (TEXT, f"fail {TEXT}", f"quote {TEXT}", f"quote {TEXT}{FORGED}"):
        for route in ("/run", "/run_sse"):
            yield "POST", route, message(app, ID, text, stateDelta={"k": STATE})
        yield "POST", f"{one}/run", {"message": text}
        yield "POST", f"{one}/run", {"message": text, "ifBusy": TEXT}
    yield "POST", "/run", message(app, ID, TEXT, newMessage={"role": TEXT, "parts": TEXT})
    yield "POST", "/run", message(app, f"other-{ID}", TEXT)
    yield "POST", "/run", message(f"{app}{FORGED}", ID, TEXT)
    yield "POST", "/run", message("nobody", ID, TEXT)
    yield "POST", "/run", {TEXT: TEXT}
    for route in (one, record, sessions, f"{one}/run", f"{one}/artifacts", f"{one}/nowhere"):
        yield "GET", route, None
    yield "POST", f"{one}/artifacts", {"filename": TEXT, "artifact": {"text": TEXT}}
    yield "GET", f"/{TEXT}?{TEXT}={TEXT}", None
    yield "DELETE", one, None


def provoke(server, identity, app="parrot"):
    """Send all requests and return the answers."""
    told = []
    # Alone: after an unforeseen error uvicorn closes the connection.
    headers = HEADERS | {"Connection": "close"} | identity
    for method, path, body in requests(app):
        answer = server.client.request(method, path, json=body, headers=headers)
        told.append(f"{method} {path} {answer.status_code} {answer.headers} {answer.text}")
    raws = (
        request("POST", "/run", b'{"newMessage": "%s' % TEXT.encode()),
        request("POST", "/run", b'{"stateDelta": %s}' % (b"[" * 5000)),
        request("GET", f"/{TEXT}%00{TEXT}"),
        f"GET /{TEXT} HTTP/9.9\r\n{TEXT}\r\n\r\n".encode(),
        request("GET", "/", b"", f"Upgrade: {TEXT}".encode(), b"Connection: upgrade"),
    )
    told += [str(answer_to(server, raw)) for raw in raws]
    address = server.url.replace("http", "ws", 1)
    query = f"app_name={app}&user_id={USER}&session_id={ID}&modalities=TEXT"
    for said in (json.dumps({"content": {"parts": [{"text": TEXT}]}}), TEXT):
        with (
            contextlib.suppress(WebSocketException, TimeoutError),
            connect(f"{address}/run_live?{query}", proxy=None, additional_headers=identity) as live,
        ):
            live.send(said)
            live.recv(timeout=0.5)
    return told
