"""The chart of `ops/helm`, rendered by Helm's own engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from deployment import OPS, module

FOLDER = OPS / "helm" / "lapse"

LEAST: dict[str, Any] = {"existingSecret": "lapse", "settings": {"LAPSE_AUTH": "header"}}
"""The values without which the chart is not rendered."""

MOST: dict[str, Any] = {
    "existingSecret": "lapse",
    "image": {"digest": "sha256:" + "a" * 64, "pullSecrets": [{"name": "registry"}]},
    "settings": {"LAPSE_ARTIFACT_SERVICE_URI": "gs://bucket", "LAPSE_STATEMENT_CACHE": "0"},
    "agents": "/agents",
    "extraArgs": ["--url-prefix", "/api"],
    "insecure": True,
    "host": "::",
    "retentionPolicy": '[default]\nidle = "90d"\n',
    "servers": {"autoscaling": {"enabled": True}, "drainSeconds": 20, "runGraceSeconds": 60},
    "migrate": {"existingSecret": "owner", "role": "lapse_server"},
    "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "a@b.example"}},
    "service": {"annotations": {"a.example/b": "c"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "agents.example",
        "tlsSecret": "tls",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
        "tokenKey": "LAPSE_METRICS_TOKEN",
    },
    "podAnnotations": {"a.example/b": "c"},
    "podLabels": {"team": "agents"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "sidecars": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
}
"""Every part that can be switched on."""

FEWEST: dict[str, Any] = LEAST | {
    "sweeper": {"enabled": False},
    "migrate": {"enabled": False},
    "servers": {"disruptionBudget": {"enabled": False}},
    "serviceAccount": {"create": False},
    "topologyKeys": [],
}
"""Every part switched off."""

VALUES = {"least": LEAST, "most": MOST, "fewest": FEWEST}


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the manifests for some values, which the schema must allow."""
    with module("helm_python").Chart.load(str(FOLDER)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="chat", namespace="agents")
    return [
        manifest
        for name, text in files.items()
        if name.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the specification of each pod, with the name of what makes it."""
    for one in manifests:
        if one["kind"] in {"Deployment", "Job"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def one_of(manifests: list[dict[str, Any]], kind: str, name: str = "chat-lapse") -> dict[str, Any]:
    """Return the only manifest of a kind and name."""
    (found,) = [one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found
