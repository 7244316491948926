"""`ops/helm`: the chart renders to what Kubernetes takes, and says what the rest of `ops/` says."""

from __future__ import annotations

import copy
import json
import tomllib

import pytest
import yaml
from chart import FOLDER, LEAST, MOST, VALUES, one_of, pods, rendered
from deployment import OPS, PUBLIC, ROOT, check_command, check_settings, module

VERSIONS = ("1.29", "1.37")
"""Kubernetes: the oldest with sidecars, and the newest that has schemas."""


@pytest.fixture(params=VALUES)
def manifests(request):
    return rendered(VALUES[request.param])


def test_helm_finds_no_fault():
    """Seen to fail with an `{{ end }}` in another place, and without a version."""
    for values in VALUES.values():
        report = module("helm_python").lint(str(FOLDER), values, strict=True)
        assert report["errors"] == []
        assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


def test_kubernetes_takes_each_manifest(manifests):
    """Seen to fail with `terminationGraceSeconds`, and with a port that is a text."""
    kubernetes = module("kubernetes_validate")
    for version in VERSIONS:
        for one in manifests:
            if one["apiVersion"] != "monitoring.coreos.com/v1":  # the operator's own
                kubernetes.validate(one, version, strict=True)


def test_the_chart_has_the_version_that_it_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    about = yaml.safe_load((FOLDER / "Chart.yaml").read_text("utf-8"))
    assert about["appVersion"] == project["version"]


def test_alerts_and_dashboard_are_those_of_ops():
    """Seen to fail with an alert more in ops/prometheus."""
    manifests = rendered(MOST)
    alerts = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text("utf-8"))
    assert one_of(manifests, "PrometheusRule")["spec"] == alerts
    dashboard = one_of(manifests, "ConfigMap", "chat-lapse-dashboard")["data"]["lapse.json"]
    assert json.loads(dashboard) == json.loads((OPS / "grafana" / "lapse.json").read_text("utf-8"))


def test_each_command_and_setting_exists(manifests, monkeypatch):
    """Seen to fail with `migrate --roles`, and with LAPSE_SWEEPERS."""
    found = list(pods(manifests))
    assert found
    for name, pod in found:
        (container,) = pod["containers"]
        assert "command" not in container, "the image's entry point is lapse"
        check_command(container["args"])
        given = {one["name"]: one.get("value") for one in container["env"]}
        assert len(given) == len(container["env"]), f"{name} has one twice"
        assert given.pop("LAPSE_STORE_URL") is None
        if given.get("LAPSE_AUTH") == "header":
            given["LAPSE_AUTH_PROXIES"] = "10.0.0.0/8"  # stands in the Secret here
        given.pop("LAPSE_RETENTION_FILE", None)  # read by `test_the_policy_is_mounted…`
        check_settings(monkeypatch, given)


def test_each_pod_is_restricted_and_has_no_token(manifests):
    """Kubernetes' profile `restricted`. Seen to fail with `allowPrivilegeEscalation: true`."""
    uid = int(
        (ROOT / "ops/container/Dockerfile").read_text("utf-8").split("USER ")[1].split(":")[0]
    )
    for _, pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == uid
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
            mounted = {one["name"] for one in container["volumeMounts"]}
            assert mounted == {one["name"] for one in pod["volumes"]}


def test_probes_and_ports_fit_the_server(manifests):
    """Seen to fail with `/healthz`, and with `--port 8080`."""
    server = one_of(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = server["containers"]
    port = container["args"][container["args"].index("--port") + 1]
    (named,) = container["ports"]
    assert (named["name"], str(named["containerPort"])) == ("http", port)
    for _, pod in pods([one for one in manifests if one["kind"] == "Deployment"]):
        (probed,) = pod["containers"]
        assert probed["ports"] == container["ports"]
        assert probed["args"][probed["args"].index("--port") + 1] == port
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = probed[kind]["httpGet"]
            assert asked["path"] in PUBLIC
            assert asked["port"] == named["name"]
    (served,) = one_of(manifests, "Service")["spec"]["ports"]
    assert served["targetPort"] == named["name"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "no outage restarts it"


def test_a_server_has_the_time_to_end(manifests):
    """Seen to fail with 20 seconds whatever the grace of runs."""
    pod = one_of(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {one["name"]: one.get("value") for one in container["env"]}
    _, drain = container["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(drain) + int(given["LAPSE_RUN_GRACE_SECONDS"]) + 2
    assert pod["terminationGracePeriodSeconds"] > needed


def test_what_selects_finds_the_servers_alone():
    """Seen to fail without the component in the selectors."""
    manifests = rendered(MOST)
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in manifests
        if one["kind"] in {"Deployment", "Job"}
    }
    selectors = [
        one_of(manifests, "Service")["spec"]["selector"],
        one_of(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one_of(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
    ]
    for wanted in selectors:
        found = [name for name, has in labels.items() if wanted.items() <= has.items()]
        assert found == ["chat-lapse"]
    monitored = one_of(manifests, "ServiceMonitor")["spec"]
    (endpoint,) = monitored["endpoints"]
    assert endpoint["path"] in PUBLIC
    for name in ("chat-lapse", "chat-lapse-sweeper"):
        service = one_of(manifests, "Service", name)
        wanted = monitored["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()
        assert endpoint["port"] == service["spec"]["ports"][0]["name"]
        assert service["spec"]["selector"].items() <= labels[name].items()
    assert one_of(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "chat-lapse",
    }


def test_tables_are_migrated_before_anything_that_the_chart_makes():
    """A hook runs before the chart's objects are there, so that it may need none of them.

    Seen to fail with the policy's ConfigMap in the Job: it would wait for it for ever.
    """
    manifests = rendered(MOST)
    job = one_of(manifests, "Job", "chat-lapse-migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    made = {(one["kind"], one["metadata"]["name"]) for one in manifests} - {
        ("Job", "chat-lapse-migrate")
    }
    used = {("ServiceAccount", pod["serviceAccountName"])}
    used |= {
        ("ConfigMap", one["configMap"]["name"]) for one in pod["volumes"] if "configMap" in one
    }
    assert not made & used
    (container,) = pod["containers"]
    (store,) = [one for one in container["env"] if one["name"] == "LAPSE_STORE_URL"]
    assert store["valueFrom"]["secretKeyRef"]["name"] == "owner"


def test_one_process_sweeps_or_every_server_does():
    for values, sweeps in ((LEAST, "off"), (VALUES["fewest"], "on")):
        manifests = rendered(values)
        server = one_of(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        assert {"name": "LAPSE_SWEEPER", "value": sweeps} in server["env"]
        sweepers = [name for name, _ in pods(manifests) if name.endswith("-sweeper")]
        assert bool(sweepers) == (sweeps == "off")


def test_the_policy_is_mounted_where_the_setting_says_and_replaces_the_pods():
    """Seen to fail without the checksum: pods would keep the policy of their start."""
    manifests = rendered(MOST)
    policy = one_of(manifests, "ConfigMap", "chat-lapse-retention")["data"]["retention.toml"]
    assert tomllib.loads(policy) == {"default": {"idle": "90d"}}
    other = rendered(MOST | {"retentionPolicy": '[default]\nidle = "91d"\n'})
    for name in ("chat-lapse", "chat-lapse-sweeper"):
        template = one_of(manifests, "Deployment", name)["spec"]["template"]
        (container,) = template["spec"]["containers"]
        (mounted,) = [one for one in container["volumeMounts"] if one["name"] == "retention"]
        assert {
            "name": "LAPSE_RETENTION_FILE",
            "value": f"{mounted['mountPath']}/retention.toml",
        } in container["env"]
        assert (
            template["metadata"]["annotations"]
            != one_of(other, "Deployment", name)["spec"]["template"]["metadata"]["annotations"]
        )


def without(values, name):
    left = copy.deepcopy(values)
    del left[name]
    return left


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (without(LEAST, "existingSecret"), "existingSecret"),
        (LEAST | {"existingSecret": ""}, "name the Secret"),
        (without(LEAST, "settings"), "set settings.LAPSE_AUTH"),
        (LEAST | {"insecure": True}, "take one of them out"),
        (LEAST | {"replica": 3}, "replica"),
        (LEAST | {"settings": {"LAPSE_AUTH": "header", "LAPSE_STORE_URL": "s"}}, "settings"),
        (LEAST | {"settings": {"LAPSE_AUTH": "header", "LAPSE_POOL_SIZE": 5}}, "LAPSE_POOL_SIZE"),
        (MOST | {"ingress": {"enabled": True}}, "ingress.host"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_values_that_would_not_work_are_refused_with_the_reason(values, says):
    """Seen to fail for each without its line in the schema, or its `fail`."""
    helm = module("helm_python")
    with pytest.raises(helm.HelmError, match=says):
        rendered(values)


def test_notes_say_what_is_open_and_what_is_lost():
    with module("helm_python").Chart.load(str(FOLDER)) as chart:
        for values, insecure, lost in ((LEAST, False, True), (MOST, True, False)):
            notes = chart.render(values, name="chat")["lapse/templates/NOTES.txt"]
            assert ("NOBODY IS AUTHENTICATED" in notes) == insecure
            assert ("in each server's memory" in notes) == lost
