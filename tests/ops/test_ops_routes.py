"""The routes that containers, Kubernetes and Prometheus ask for, on a real server."""

from deployment import PUBLIC

from serving import AGENTS, serving


def test_each_route_that_machines_ask_for_answers_without_a_user(tmp_path):
    """Seen to fail with `/healthz`."""
    with serving(tmp_path, str(AGENTS), LAPSE_SWEEPER="off") as server:
        assert {path: server.client.get(path).status_code for path in PUBLIC} == dict.fromkeys(
            PUBLIC, 200
        )
