"""Every JSON answer of Lapse's routes has one style; ADK's own answers are ADK's."""

from __future__ import annotations

import json

import pytest
from fastapi.routing import iter_route_contexts

from json_style import faults
from lived_sessions import OPERATOR, lived

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # what ADK calls itself
]

NO_JSON = {
    "/metrics", "/lapse/client.js", "/lapse/static/{release}/{name}", "/lapse/acts.csv",
    *("/lapse/", "/lapse/live", "/lapse/sessions", "/lapse/session", "/lapse/session/{action}"),
    *("/lapse/sweep", "/lapse/brake", "/lapse/acts", "/lapse/login", "/lapse/logout"),
    *("/lapse/retention", "/lapse/retention/confirm", "/lapse/hold", "/lapse/hold/release"),
    *("/lapse/bulk", "/lapse/help", "/lapse/{path:path}", "/lapse/api/export"),
    "/apps/{app_name}/users/{user_id}/sessions/{session_id}/lifecycle/events",
    *("/run", "/run_sse"),
}  # fmt: skip
"""Routes whose answers are pages, text, streams, or ADK's own."""


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lived")
    with lived(f"sqlite:///{folder}/lapse.db", folder) as found:
        yield found


def begun(life):
    """Begin a run, and return what is answered."""
    answer = life.client.post(f"{life.path('said-something')}/run", json={"message": "more"})
    assert answer.status_code < 300, answer.text
    return answer.json()


def calls(life):
    """Return a request to each of Lapse's routes that answer JSON: method, path, headers, body."""
    session, sessions = life.path("waits"), life.path()
    gone, said = life.path("gone"), life.path("said-something")
    run = {"message": "hello again"}
    return [
        ("GET", "/livez", {}, None),
        ("GET", "/readyz", {}, None),
        ("GET", f"{sessions}?status=used,waiting,expired,orphan&lifecycle=true", {}, None),
        ("GET", f"{session}/lifecycle", {}, None),
        ("PATCH", f"{session}/lifecycle", {}, {"metadata": {"rated_by": 1}}),
        ("POST", f"{session}/lifecycle/extend", {}, None),
        ("POST", f"{gone}/lifecycle/resurrect", {}, None),
        ("POST", f"{said}/run", {}, run),
        ("PUT", f"{said}/pin", {}, None),
        ("DELETE", f"{said}/pin", {}, None),
        ("GET", f"{said}/run/{begun(life)['runId']}", {}, None),
        ("GET", "/lapse/api/stats", OPERATOR, None),
        ("GET", "/lapse/api/sessions", OPERATOR, None),
        *[
            ("GET", f"/lapse/api/session?{life.query(name)}", OPERATOR, None)
            for name in ("waits", "gone", "was-expired-by-an-operator", "of-stock-adk")
        ],
        ("POST", f"/lapse/api/session/extend?{life.query('waits')}", OPERATOR, None),
        ("GET", "/lapse/api/sweep", OPERATOR, None),
        ("POST", "/lapse/api/sweep", OPERATOR, None),
        ("POST", "/lapse/api/sweep/confirm", OPERATOR, None),
        ("GET", "/lapse/api/acts", OPERATOR, None),
        ("GET", "/lapse/api/retention", OPERATOR, None),
        ("POST", "/lapse/api/retention/confirm?digest=x", OPERATOR, None),
        ("POST", f"/lapse/api/holds?{life.query('used')}&reason=case", OPERATOR, None),
        ("GET", "/lapse/api/holds", OPERATOR, None),
        ("POST", f"/lapse/api/holds/release?{life.query('used')}", OPERATOR, None),
        # Refusals.
        ("PATCH", f"{session}/lifecycle", {}, {"ttlMinutes": -1}),
        ("POST", f"{said}/lifecycle/extend", {}, None),
        ("POST", sessions, {}, {"options": {"ttl": 5}}),
        ("GET", f"{life.path('unknown')}/lifecycle", {}, None),
        ("GET", f"{sessions}?status=odd", {}, None),
        ("POST", f"{said}/run", {}, {"message": 5}),
    ]


def routes_of_lapse(app):
    """Yield the paths of Lapse's routes."""
    app.openapi()  # loads those of operators
    for route in iter_route_contexts(app.routes):
        endpoint = getattr(route, "endpoint", None)
        if getattr(endpoint, "__module__", "").startswith("lapse."):
            yield route.path


def test_every_json_answer_is_in_one_style(life):
    """Seen to fail with `expires_at` in a record, and with `+00:00` for `Z`."""
    reached = set()
    for method, path, headers, body in calls(life):
        answer = life.client.request(method, path, headers=headers, json=body)
        assert answer.headers["content-type"].startswith("application/json"), (method, path)
        assert list(faults(answer.json())) == [], (method, path, answer.text)
        reached.add(filled(path))
    named = {
        filled(path.format(**NAMES)) for path in set(routes_of_lapse(life.served.app)) - NO_JSON
    }
    assert named - {"/lapse/acts.json"} <= reached


NAMES = {
    "app_name": "A", "user_id": "U", "session_id": "S", "action": "extend", "run_id": "R",
    "release": "x", "name": "n",
}  # fmt: skip


def filled(path):
    """Return a path with one name for every app, user, session and run."""
    parts = path.partition("?")[0].split("/")
    if parts[1] == "apps":
        for place, name in ((2, "A"), (4, "U"), (6, "S"), (8, "R")):
            if len(parts) > place:
                parts[place] = name
    return "/".join(parts)


def test_notices_and_the_frames_of_runs_are_in_the_same_style(life):
    stream = f"{life.path('waits')}/lifecycle/events"
    with life.client.stream("GET", stream) as answer:
        data = next(line for line in answer.iter_lines() if line.startswith("data:"))
    assert list(faults(json.loads(data.removeprefix("data:")))) == []
    frames = life.client.get(begun(life)["stream"]).text
    done = frames.partition("event: done")[2]
    assert done, frames
    (said,) = [line for line in done.splitlines() if line.startswith("data:")]
    assert list(faults(json.loads(said.removeprefix("data:")))) == []
