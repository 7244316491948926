"""Reading a run's stream as a browser does: blocks of lines, the last id kept."""

import json
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

AGENTS = Path(__file__).with_name("run_agents")
_numbers = count(1)


@dataclass(frozen=True)
class StreamEvent:
    """One event of a stream; `data` as it was written."""

    id: str
    kind: str
    data: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.data)

    @property
    def is_partial(self) -> bool:
        return bool(self.document.get("partial"))

    @property
    def text(self) -> str:
        return self.document["content"]["parts"][0]["text"]


def parse_events(lines):
    """Yield the events of a stream's lines."""
    fields = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield StreamEvent(fields.get("id", ""), fields.get("event", "message"), fields["data"])
            fields = {}
        else:
            fields = {}


def path(session, app="walker", user="ada"):
    return f"/apps/{app}/users/{user}/sessions/{session}/run"


def new_session_id():
    """Return the name of a new session."""
    return f"walk-{next(_numbers)}"


def post(server, session, text, **body):
    return server.client.post(path(session), json={"message": text} | body)


def begin(server, session, text, **body):
    """Post a message and return the run's id."""
    answer = post(server, session, text, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["runId"]


@contextmanager
def reading(server, session, last=None, run_id=None):
    """Give the events of a stream as they come."""
    headers = {} if last is None else {"Last-Event-ID": last}
    params = {} if run_id is None else {"runId": run_id}
    with server.client.stream("GET", path(session), headers=headers, params=params) as response:
        assert response.status_code == 200, response.read()
        yield parse_events(response.iter_lines())


def read(server, session, last=None, run_id=None):
    """Return a whole stream, to its end."""
    with reading(server, session, last, run_id) as events:
        return list(events)


def steps_of(events):
    """Return what the agent said in whole events."""
    return [event.text for event in events if event.kind == "message" and not event.is_partial]


def expected_steps(number, start=1):
    return [f"step {step}" for step in range(start, number + 1)]


def status(server, session, run_id):
    answer = server.client.get(f"{path(session)}/{run_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()["status"]
