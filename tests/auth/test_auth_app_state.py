"""App state over HTTP: whose requests may set it, by every way in, and how large it becomes."""

import json
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from google.adk.agents.live_request_queue import LiveRequest
from tokens import AUDIENCE, ISSUER, bearer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lapse import Lapse, ServerOptions, Settings
from postgres import database
from served import Served
from serving import AGENTS

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

SETTING = "LAPSE_MAX_SHARED_STATE_KIB"
LONG = "word " * 600


@dataclass
class Caller:
    """Somebody, known or not, who asks a server about Ann's sessions."""

    served: Served
    headers: dict[str, str]

    def ask(self, method, path, body=None, **headers):
        url = path if path.startswith("/run") else f"/apps/parrot/users/ann/sessions{path}"
        return self.served.client.request(method, url, json=body, headers=self.headers | headers)

    def create(self):
        answer = self.ask("POST", "", {})
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def state(self, session_id):
        return self.ask("GET", f"/{session_id}").json()["state"]

    def live(self, session_id, message):
        """Say something to `/run_live`; return the text that is heard, or why it is closed."""
        query = f"app_name=parrot&user_id=ann&session_id={session_id}&modalities=TEXT"
        url = f"{self.served.url.replace('http', 'ws')}/run_live?{query}"
        with connect(url, additional_headers=self.headers, proxy=None) as socket:
            socket.send(message)
            try:
                while True:
                    event = json.loads(socket.recv(timeout=20))
                    if event.get("author") == "parrot" and "content" in event:
                        return event["content"]["parts"][0]["text"]
            except ConnectionClosed:
                return socket.close_code, socket.close_reason


def settings(mode, issuer, **more):
    quotas = dict.fromkeys(
        ("waiting_per_user", "waiting_per_address", "creates_per_user", "creates_per_address"), 0
    )
    match mode:
        case "jwt":
            more |= {
                "auth": "jwt",
                "jwt_key": issuer.public_pem,
                "jwt_algorithms": "ES256",
                "jwt_issuer": ISSUER,
                "jwt_audience": AUDIENCE,
                "jwt_role_claim": "roles",
            }
        case "header":
            more |= {
                "auth": "header",
                "auth_header": "X-User",
                "auth_role_header": "X-Role",
                "auth_proxies": "127.0.0.1",
            }
        case "agents":
            more["app_state_by"] = "agents"
    return Settings(**quotas, **more)


NAMES = {"user": "ann", "service": "bot", "operator": "root"}


def headers(mode, role, issuer):
    match mode:
        case "jwt":
            return bearer(issuer.token(NAMES[role], roles=[role]))
        case "header":
            return {"X-User": NAMES[role], "X-Role": role}
    return {}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def serve(request, tmp_path_factory):
    """Return a function that serves the test agents, on the store of this parameter."""
    with ExitStack() as stack:

        def start(settings):
            if request.param == "sqlite":
                url = f"sqlite:///{tmp_path_factory.mktemp('app-state') / 'lapse.db'}"
            else:
                url = stack.enter_context(database())
            app = Lapse(url, settings).app(
                AGENTS, port=0, server=ServerOptions(artifact_service_uri="memory://")
            )
            return stack.enter_context(Served(app))

        yield start


@pytest.fixture(scope="module")
def servers(serve, issuer):
    """Return a function that gives the server of a mode of authentication."""
    started = {}

    def server(mode):
        if mode not in started:
            started[mode] = serve(settings(mode, issuer))
        return started[mode]

    return server


MESSAGE = {"role": "user", "parts": [{"text": "hello"}]}
STATE = {"own": 1, "app:rules": "obey"}
EVENT = {"author": "user", "content": MESSAGE}


def run_of(session_id, **more):
    named = {"appName": "parrot", "userId": "ann", "sessionId": session_id}
    return named | {"newMessage": MESSAGE} | more


WAYS = {
    "a creation": ("state", lambda one, _: one.ask("POST", "", {"state": STATE})),
    "a creation with an id": ("body", lambda one, _: one.ask("POST", "/of-ann", STATE)),
    "a creation with events": (
        "events",
        lambda one, _: one.ask(
            "POST", "", {"events": [EVENT | {"actions": {"stateDelta": STATE}}]}
        ),
    ),
    "a creation with events, in snake case": (
        "events",
        lambda one, _: one.ask(
            "POST", "", {"events": [EVENT | {"actions": {"state_delta": STATE}}]}
        ),
    ),
    "a patch": ("stateDelta", lambda one, own: one.ask("PATCH", f"/{own}", {"stateDelta": STATE})),
    "a patch in snake case": (
        "state_delta",
        lambda one, own: one.ask("PATCH", f"/{own}", {"state_delta": STATE}),
    ),
    "/run": ("stateDelta", lambda one, own: one.ask("POST", "/run", run_of(own, stateDelta=STATE))),
    "/run in snake case": (
        "state_delta",
        lambda one, own: one.ask("POST", "/run", run_of(own, state_delta=STATE)),
    ),
    "/run_sse": (
        "stateDelta",
        lambda one, own: one.ask("POST", "/run_sse", run_of(own, stateDelta=STATE)),
    ),
    "a detached run": (
        "stateDelta",
        lambda one, own: one.ask(
            "POST", "/run_sse", run_of(own, stateDelta=STATE), **{"Lapse-Detach": "true"}
        ),
    ),
    "a run of the session": (
        "stateDelta",
        lambda one, own: one.ask("POST", f"/{own}/run", {"message": "hi", "stateDelta": STATE}),
    ),
    "a run of a session that is not there yet": (
        "stateDelta",
        lambda one, _: one.ask("POST", "/new/run", {"message": "hi", "stateDelta": STATE}),
    ),
}
NEVER = {way for way in WAYS if "events" in way}
"""What ADK takes from nobody."""

ways = pytest.mark.parametrize("way", WAYS)
refusing = pytest.mark.parametrize("mode", ["jwt", "header", "agents"])


def cleared(server, issuer, mode):
    """Return Ann, and what finds app state as it is; what other tests have set is taken back."""
    ann = Caller(server, headers(mode, "user", issuer))
    return ann, lambda: ann.state(ann.create()).get("app:rules")


@refusing
@ways
def test_a_user_sets_no_app_state_by_a_request(servers, issuer, mode, way):
    """Seen to fail with `may_set_app_state` always true, and with each of the fields left out."""
    ann, rules = cleared(servers(mode), issuer, mode)
    own, before = ann.create(), rules()
    shown = ann.state(own)
    count = len(ann.ask("GET", "").json())
    field, send = WAYS[way]
    answer = send(ann, own)
    assert answer.status_code == 400
    reason = "must not set 'app:rules'; app state is for agents, services and operators"
    assert answer.json() == {"detail": f"{field}: {reason}"}
    assert len(ann.ask("GET", "").json()) == count
    assert (ann.state(own), rules()) == (shown, before)
    assert ann.ask("GET", f"/{own}/lifecycle").json()["status"] == "waiting"


@pytest.mark.parametrize(
    ("mode", "role"),
    [(mode, role) for mode in ("jwt", "header") for role in ("service", "operator")]
    + [("anyone", "user")],
)
@ways
def test_whoever_may_sets_app_state_by_every_way(servers, issuer, mode, role, way):
    """Seen to fail with `may_set_app_state` always false."""
    server = servers(mode)
    ann, rules = cleared(server, issuer, mode)
    one = Caller(server, headers(mode, role, issuer))
    own = ann.create()
    one.ask("PATCH", f"/{own}", {"stateDelta": {"app:rules": None}})
    for session_id in ("of-ann", "new"):
        ann.ask("DELETE", f"/{session_id}")
    answer = WAYS[way][1](one, own)
    if way in NEVER:
        assert answer.status_code == 400
        assert rules() is None
        return
    assert answer.status_code == 200
    assert rules() == "obey"


LIVE = {
    "state alone": json.dumps({"state_delta": STATE}),
    "beside a message": json.dumps({"content": MESSAGE, "state_delta": STATE}),
    "in other letters": json.dumps({"content": MESSAGE}).replace(
        "}]}}", '}]}, "st\\u0061te_delta": {"\\u0061pp:rules": "obey"}}'
    ),
}


@refusing
@pytest.mark.parametrize("said", LIVE)
def test_a_user_sets_no_app_state_in_a_live_run(servers, issuer, mode, said):
    """Seen to fail without the check of messages, and with one that looks for the name alone."""
    ann, rules = cleared(servers(mode), issuer, mode)
    own, before = ann.create(), rules()
    code, reason = ann.live(own, LIVE[said])
    assert code == 1008
    assert reason.startswith("state_delta: must not set 'app:rules'")
    # The agent's turn may have begun, for a WebSocket begins one by itself.
    assert "own" not in ann.state(own)
    assert rules() == before


@pytest.mark.parametrize("mode", ["jwt", "header", "agents", "anyone"])
def test_a_user_says_all_else_in_a_live_run(servers, issuer, mode):
    ann = Caller(servers(mode), headers(mode, "user", issuer))
    own = ann.create()
    said = json.dumps({"content": MESSAGE, "state_delta": {"own": 'a "\\" state_delta'}})
    assert ann.live(own, said) == "heard: hello"
    assert ann.state(own)["own"] == 'a "\\" state_delta'


@pytest.mark.parametrize(("mode", "role"), [("jwt", "service"), ("anyone", "user")])
def test_whoever_may_sets_app_state_in_a_live_run(servers, issuer, mode, role):
    server = servers(mode)
    ann, rules = cleared(server, issuer, mode)
    one = Caller(server, headers(mode, role, issuer))
    own = ann.create()
    one.ask("PATCH", f"/{own}", {"stateDelta": {"app:rules": None}})
    assert one.live(own, LIVE["beside a message"]) == "heard: hello"
    assert rules() == "obey"


@refusing
def test_a_users_other_state_is_theirs_to_set(servers, issuer, mode):
    ann, _ = cleared(servers(mode), issuer, mode)
    state = {"own": 1, "user:name": "Ann", "x app:": 2, "App:": 3, "deep": {"app:x": 4}}
    answer = ann.ask("POST", "", {"state": state})
    assert answer.status_code == 200
    shown = answer.json()["state"]
    assert {name: shown[name] for name in state} == state


@refusing
def test_an_agent_sets_app_state_while_it_works_for_a_user(servers, issuer, mode):
    """Seen to fail with app state refused at the service, by who asks."""
    server = servers(mode)
    ann = Caller(server, headers(mode, "user", issuer))
    own = ann.create()
    said = {"role": "user", "parts": [{"text": f"teach {mode}"}]}
    answer = ann.ask("POST", "/run", run_of(own) | {"newMessage": said})
    assert answer.status_code == 200
    assert ann.state(ann.create())["app:lesson"] == f"teach {mode}"


def test_every_way_in_for_state_is_among_the_ways(servers):
    """A new field with state in its name, or a route that takes any object, has no way yet.

    Seen to fail with a way in less.
    """
    page = servers("anyone").app.openapi()
    schemas = page["components"]["schemas"]
    sessions = "/apps/{app_name}/users/{user_id}/sessions"
    found = set()
    for path, methods in page["paths"].items():
        for method, route in methods.items():
            if "requestBody" not in route:
                continue
            for content in route["requestBody"]["content"].values():
                for name, schema in _fields(content["schema"], schemas):
                    if _is_any_object(schema) and ("state" in name.lower() or not name):
                        found.add(f"{method.upper()} {path} {name}".strip())
    assert found == {
        f"POST {sessions} state",
        f"POST {sessions}/{{session_id}}",
        f"PATCH {sessions}/{{session_id}} stateDelta",
        f"POST {sessions}/{{session_id}}/run stateDelta",
        "POST /run stateDelta",
        "POST /run_sse stateDelta",
    }
    assert [name for name in LiveRequest.model_fields if "state" in name] == ["state_delta"]


def _fields(schema, schemas):
    """Yield the schemas that a body may have, without a name, and those of its fields."""
    for part in schema.get("anyOf", [schema]):
        whole = schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        yield "", whole
        yield from whole.get("properties", {}).items()


def _is_any_object(schema):
    return any(
        part.get("type") == "object" and part.get("additionalProperties")
        for part in schema.get("anyOf", [schema])
    )


@pytest.fixture(scope="module")
def small(serve, issuer):
    return serve(settings("jwt", issuer, max_shared_state=1))


BEYOND = {
    "a creation": lambda one, _: one.ask("POST", "", {"state": {"user:diary": LONG}}),
    "a creation with an id": lambda one, _: one.ask("POST", "/of-ann", {"user:diary": LONG}),
    "a patch": lambda one, own: one.ask("PATCH", f"/{own}", {"stateDelta": {"user:diary": LONG}}),
    "/run": lambda one, own: one.ask("POST", "/run", run_of(own, stateDelta={"user:diary": LONG})),
    "a run of the session": lambda one, own: one.ask(
        "POST", f"/{own}/run", {"message": "hi", "stateDelta": {"user:diary": LONG}}
    ),
}


@pytest.mark.parametrize("way", BEYOND)
def test_a_request_beyond_the_size_of_shared_state_is_refused(small, issuer, way):
    """Seen to fail with a store that enforces nothing; `…/run` with 500."""
    ann = Caller(small, headers("jwt", "user", issuer))
    own = ann.create()
    count = len(ann.ask("GET", "").json())
    answer = BEYOND[way](ann, own)
    assert answer.status_code == 400
    assert SETTING in answer.json()["detail"]
    assert "user: keys" in answer.json()["detail"]
    assert len(ann.ask("GET", "").json()) == count
    assert "user:diary" not in ann.state(own)
    assert ann.ask("GET", f"/{own}/lifecycle").json()["status"] == "waiting"


@pytest.mark.parametrize("detach", ["true", "false"])
def test_a_stream_tells_that_the_state_beside_its_message_is_refused(small, issuer, detach):
    """The answer has begun by then; nothing is stored."""
    ann = Caller(small, headers("jwt", "user", issuer))
    own = ann.create()
    body = run_of(own, stateDelta={"user:diary": LONG})
    answer = ann.ask("POST", "/run_sse", body, **{"Lapse-Detach": detach})
    assert SETTING in answer.text
    assert "heard" not in answer.text
    assert ann.ask("GET", f"/{own}").json()["events"] == []


@pytest.mark.parametrize(("word", "name"), [("teach", "app:lesson"), ("note", "user:note")])
def test_an_agent_that_writes_beyond_the_size_answers_all_the_same(
    small, issuer, caplog, word, name
):
    ann = Caller(small, headers("jwt", "user", issuer))
    own = ann.create()
    said = {"role": "user", "parts": [{"text": f"{word} {LONG}"}]}
    answer = ann.ask("POST", "/run", run_of(own) | {"newMessage": said})
    assert answer.status_code == 200
    assert answer.json()[-1]["content"]["parts"][0]["text"] == f"heard: {word} {LONG}"
    assert ann.state(own) == {"turns": 1}
    lines = [one for one in caplog.records if one.name == "lapse.adk.shared_state"]
    assert [(one.app, one.keys) for one in lines] == [("parrot", name)]
