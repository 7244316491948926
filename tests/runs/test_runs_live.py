"""The sockets of `/run_live` count as runs of their user."""

import json
from contextlib import ExitStack, contextmanager

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serving import AGENTS, eventually, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = {"LAPSE_RUNS_PER_USER": "2"}
    with serving(tmp_path_factory.mktemp("live"), str(AGENTS), **settings) as running:
        yield running


@contextmanager
def live(server, user="ada"):
    session_id = server.client.post(server.path(user=user), json={}).json()["id"]
    query = f"app_name=parrot&user_id={user}&session_id={session_id}&modalities=TEXT"
    address = server.url.replace("http", "ws", 1)
    with connect(f"{address}/run_live?{query}", proxy=None) as socket:
        yield socket


def answers(socket):
    socket.send(json.dumps({"content": {"parts": [{"text": "hello"}]}}))
    return any("heard: hello" in heard for heard in iter(lambda: socket.recv(timeout=20), None))


def test_a_user_has_so_many_sockets_until_one_is_closed(server):
    """Seen to fail without the layer, and where a socket that is closed still counts."""
    with ExitStack() as stack:
        first = stack.enter_context(live(server))
        assert answers(stack.enter_context(live(server)))
        with pytest.raises(InvalidStatus) as refused, live(server):
            pass
        response = refused.value.response
        assert response.status_code == 429
        assert "(LAPSE_RUNS_PER_USER)" in json.loads(response.body)["detail"]
        assert answers(stack.enter_context(live(server, user="bob")))
        first.close()

        def is_let_in():
            try:
                with live(server) as socket:
                    return answers(socket)
            except InvalidStatus:
                return False

        assert eventually(is_let_in)
