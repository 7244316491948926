"""`/livez`, `/readyz`, `/metrics`, and ADK's other routes beside Lapse's."""

from __future__ import annotations

from adk_versions import since_adk
from serving import eventually


def test_healthz_and_readyz_answer_200(server):
    assert server.client.get("/livez").json() == {"status": "alive"}
    ready = server.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


def counted(server, samples):
    return {sample: server.metric(sample) for sample in samples}


def test_the_metrics_count_what_happens_to_sessions(server):
    app = '{app="parrot"}'
    created = f"lapse_sessions_created_total{app}"
    used = f"lapse_first_messages_total{app}"
    expired = f"lapse_sessions_expired_total{app}"
    deleted = f"lapse_sessions_deleted_total{app}"
    extended = f"lapse_sessions_extended_total{app}"
    amended = f"lapse_sessions_amended_total{app}"
    ages = f"lapse_time_to_first_message_seconds_count{app}"
    lateness = f"lapse_expiry_lateness_seconds_count{app}"
    by = 'lapse_sessions_resurrected_total{{app="parrot",cause="{}"}}'
    samples = [created, used, expired, deleted, extended, amended, ages, lateness]
    samples += [by.format(cause) for cause in ("request", "run", "message")]
    before = counted(server, samples)

    spoken_to, gone = server.create(), server.create()
    for _ in range(3):
        server.run(spoken_to)
    server.client.post(server.path(gone) + "/lifecycle/extend")
    server.client.patch(server.path(gone) + "/lifecycle", json={"metadata": {"a": 1}})
    server.client.delete(server.path(gone))
    asked, ran = server.short_lived(), server.short_lived()
    eventually(lambda: server.metric(expired) >= before[expired] + 2)
    server.client.post(server.path(asked) + "/lifecycle/resurrect")
    server.client.delete(server.path(asked))
    server.run(ran)

    after = counted(server, samples)
    grown = {sample: after[sample] - before[sample] for sample in samples}
    assert grown[created] == 4
    assert grown[used] == grown[ages] == 2
    assert grown[expired] == grown[lateness] >= 2
    assert (grown[deleted], grown[extended], grown[amended]) == (2, 1, 1)
    assert grown[by.format("request")] == 1
    assert grown[by.format("run")] == 1
    assert grown[by.format("message")] == 0


def test_the_metrics_have_the_documented_names_and_types(server):
    server.run(server.create())
    server.short_lived()
    text = server.client.get("/metrics").text
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert (
        types.items()
        >= {
            "lapse_sessions_created_total": "counter",
            "lapse_first_messages_total": "counter",
            "lapse_sessions_expired_total": "counter",
            "lapse_sessions_resurrected_total": "counter",
            "lapse_sessions_purged_total": "counter",
            "lapse_sweep_errors_total": "counter",
            "lapse_time_to_first_message_seconds": "histogram",
            "lapse_expiry_lateness_seconds": "histogram",
            "lapse_sweep_duration_seconds": "histogram",
            "lapse_sessions": "gauge",
        }.items()
    )
    content_type = server.client.get("/metrics").headers["content-type"]
    assert content_type.startswith("text/plain; version=")


def test_the_metrics_count_streams_and_plain_runs(server):
    plain = 'lapse_plain_runs_total{app="parrot",route="run"}'
    streamed = 'lapse_plain_runs_total{app="parrot",route="run_sse"}'
    session = server.create()
    before, streamed_before = server.metric(plain), server.metric(streamed)
    server.run(session)
    assert server.metric(plain) == before + 1
    detached = server.client.post(
        "/run_sse", json=server.run_body(session, "hello"), headers={"Lapse-Detach": "true"}
    )
    assert detached.status_code == 200
    assert server.metric(streamed) == streamed_before
    with server.client.stream("GET", server.path(session) + "/lifecycle/events"):
        assert server.metric("lapse_streams_open") == 1
    eventually(lambda: server.metric("lapse_streams_open") == 0)


def test_adks_other_routes_still_answer(server):
    assert server.client.get("/health").status_code == 200
    assert "version" in server.client.get("/version").json()
    assert server.client.get("/list-apps").json() == ["parrot"]


@since_adk("1.39", "an app has no description")
def test_adks_description_of_an_app_still_answers(server):
    assert server.client.get("/apps/parrot/app-info").status_code == 200


def test_one_openapi_description_has_the_routes_of_lapse_and_adk(server):
    paths = server.client.get("/openapi.json").json()["paths"]
    session = "/apps/{app_name}/users/{user_id}/sessions/{session_id}"
    assert {session, f"{session}/lifecycle", "/run_sse", "/readyz"} <= set(paths)


def test_adks_developer_ui_answers(server):
    page = server.client.get("/dev-ui/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@since_adk("2.7", "ADK looks at no Host, except in 1.39.1")
def test_requests_from_other_origins_and_hosts_are_refused(server):
    foreign = server.client.post(server.path(), headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403
    rebound = server.client.get(server.path(), headers={"host": "evil.example"})
    assert rebound.status_code == 403
    session_id = server.create()
    rebound = server.client.post(
        server.path(session_id) + "/lifecycle/extend", headers={"host": "evil.example"}
    )
    assert rebound.status_code == 403
