"""Every setting reaches the object that uses it, however Lapse is run."""

from __future__ import annotations

import os
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from google.genai.types import AvatarConfig
from wholes import WAYS

from lapse.artifacts.uploads import MIB
from lapse.auth import HeaderAuthenticator, TokenAuthenticator
from lapse.core.messages import UsedByRule
from lapse.limits.rules import KIB
from lapse.settings import Settings
from lapse.telemetry.logs import LogFormat, LogLevel
from lapse.ttl import Policy
from lapse.web.middleware.access_log import AccessLog
from shop_hooks import HOOKS

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

SECRET = "s" * 64
POLICY = Path(__file__).with_name("policy.toml")
OWN_STORE = {"mount": "the service brings its own store"}
NO_LOG = {
    "mount": "the application's server writes the log",
    "registry": "ADK's server writes the log",
}
NO_ROUTES = {
    "registry": "ADK's server has none of Lapse's routes",
    "sweep": "a sweeper by itself answers no requests",
}
NO_CREATES = {
    "sweep": "a sweeper by itself creates no sessions",
}
NO_STREAMS = {"registry": "ADK's server has no streams of notices"}
NO_GATE = {
    "registry": "it refuses to start where not everybody may do everything",
    "sweep": "a sweeper by itself answers no requests",
}
ADKS = {
    "mount": "the application has made its agents and their services itself",
    "registry": "ADK's server has its own options",
    "sweep": "a sweeper by itself runs no agents",
}
ITS_PORT = {"mount": "who serves the application listens"} | NO_ROUTES


@dataclass
class Row:
    """A setting's text, the expected value, where it is found, and which ways ignore it."""

    text: str
    expected: Any
    find: Any
    unused: dict[str, str] = field(default_factory=dict)
    scenario: str = "usual"


def seconds(number):
    return timedelta(seconds=number)


def database(whole):
    """The bare database: a service that a test made has all parts on it."""
    return getattr(whole.store, "database", whole.store)


def connection(whole):
    return database(whole)._connections._options


def adk(name, text, expected):
    return Row(text, expected, lambda whole: whole.adk[name], ADKS)


def jwt(text, expected, find, scenario="jwt"):
    return Row(text, expected, lambda whole: find(whole.caller_options), NO_GATE, scenario)


ROWS = {
    # Where sessions live.
    "cleanup_enabled": Row(
        "false",
        False,
        lambda whole: whole.sweeper is not None or whole.store.rules.enforced,
        {"sweep": "it refuses to sweep where nothing may be swept"},
        "off",
    ),
    "store_url": Row(
        "postgresql://nobody@127.0.0.1:1/none",
        "postgresql://nobody@127.0.0.1:1/none",
        lambda whole: database(whole)._connections._dsn,
        OWN_STORE,
    ),
    "horizon": Row("7", timedelta(hours=7), lambda whole: whole.store.rules.horizon),
    "used_by": Row(
        "anyone,shop=user",
        {UsedByRule.parse("anyone,shop=user")},
        lambda whole: (
            {whole.adopter._used_by} | ({whole.service.used_by} if whole.service else set())
        ),
    ),
    "max_shared_state": Row("22", 22 * KIB, lambda whole: whole.store.rules.shared_state),
    "pool_size": Row("3", 3, lambda whole: connection(whole).pool_size),
    "statement_timeout": Row("4", seconds(4), lambda whole: connection(whole).statement_timeout),
    "connect_timeout": Row("3", seconds(3), lambda whole: connection(whole).connect_timeout),
    "statement_cache": Row("0", 0, lambda whole: connection(whole).statement_cache),
    "postgres_without": Row("listen", {"listen"}, lambda whole: connection(whole).without),
    "artifacts": Row(
        "false",
        False,
        lambda whole: whole.store.rules.artifacts,
        {"registry": "it never notes artifacts: nobody there deletes them"},
    ),
    "artifacts_per_user": Row(
        "3", 3 * MIB, lambda whole: whole.app.state.lapse_uploads.most, NO_ROUTES
    ),
    "self_erasure": Row(
        "true",
        True,
        lambda whole: any(
            (route.path or "").endswith("/erasure")
            for route in iter_route_contexts(whole.app.routes)
        ),
        NO_GATE,
        "jwt",
    ),
    "conversations_uri": Row(
        "memory://",
        "InMemorySessionService",
        lambda whole: type(whole.service.conversations).__name__,
        OWN_STORE | NO_CREATES,
        "conversations",
    ),
    "conversations_timeout": Row(
        "3",
        seconds(6),
        lambda whole: whole.service.hand_overs._bounds.lease,
        OWN_STORE | NO_CREATES,
        "conversations",
    ),
    # The TTL.
    "ttl": Row("20", timedelta(minutes=20), lambda whole: whole.policy.default),
    "ttl_policy": Row("adaptive", Policy.ADAPTIVE, lambda whole: whole.policy.mode),
    "ttl_soft_target": Row("4%", 0.04, lambda whole: whole.policy.targets.soft),
    "ttl_hard_target": Row("0.4%", 0.004, lambda whole: whole.policy.targets.hard),
    "ttl_confidence": Row("99%", 0.01, lambda whole: whole.policy.targets.doubt),
    "ttl_floor": Row("3", timedelta(minutes=3), lambda whole: whole.policy.targets.floor),
    "ttl_cap": Row("6", timedelta(hours=6), lambda whole: whole.policy.targets.cap),
    "ttl_design_effect": Row("2", 2.0, lambda whole: whole.policy.targets.design_effect),
    # The sweep.
    "sweeper": Row(
        "off",
        None,
        lambda whole: whole.sweeper,
        {"sweep": "whoever runs it wants a sweeper, also where servers have none"},
        "no sweeper",
    ),
    "brake_share": Row("0.25", 0.25, lambda whole: whole.brakes.share),
    "brake_sessions": Row("77", 77, lambda whole: whole.brakes.sessions),
    "brake_jump": Row("2", timedelta(minutes=2), lambda whole: whole.brakes.jump),
    "adopt": Row("all", False, lambda whole: whole.adopter._selection.since_prepared),
    # Quotas.
    "waiting_per_user": Row(
        "3", 3, lambda whole: whole.service.admission.quotas.waiting_per_user, NO_CREATES
    ),
    "waiting_per_address": Row(
        "4", 4, lambda whole: whole.service.admission.quotas.waiting_per_address, NO_CREATES
    ),
    "creates_per_user": Row(
        "5", 5, lambda whole: whole.service.admission.quotas.creates_per_user, NO_CREATES
    ),
    "creates_per_address": Row(
        "6", 6, lambda whole: whole.service.admission.quotas.creates_per_address, NO_CREATES
    ),
    "creates": Row("7", 7, lambda whole: whole.service.admission.quotas.creates, NO_CREATES),
    "reuse_waiting": Row(
        "true", True, lambda whole: whole.service.admission.quotas.reuse, NO_CREATES
    ),
    # Runs.
    "runs_per_process": Row(
        "8", 8, lambda whole: whole.app.state.lapse_runs.limits.per_process, NO_ROUTES
    ),
    "runs_per_user": Row(
        "9", 9, lambda whole: whole.app.state.lapse_runs.limits.per_user, NO_ROUTES
    ),
    "run_duration": Row(
        "11", seconds(11), lambda whole: whole.app.state.lapse_runs.limits.duration, NO_ROUTES
    ),
    "run_grace": Row(
        "12", seconds(12), lambda whole: whole.app.state.lapse_runs.limits.grace, NO_ROUTES
    ),
    "run_queue": Row("13", 13, lambda whole: whole.app.state.lapse_runs.limits.queue, NO_ROUTES),
    "keys_per_user": Row(
        "24", 24, lambda whole: whole.app.state.lapse_key_rules.per_user, NO_ROUTES
    ),
    # Notices.
    "warn_before": Row(
        "1", timedelta(minutes=1), lambda whole: whole.watcher.options.warn_before, NO_STREAMS
    ),
    "heartbeat": Row("14", seconds(14), lambda whole: whole.watcher.options.heartbeat, NO_STREAMS),
    "streams_per_session": Row("2", 2, lambda whole: whole.watcher.options.per_session, NO_STREAMS),
    "streams_per_user": Row("16", 16, lambda whole: whole.watcher.options.per_user, NO_STREAMS),
    # What is taken in.
    "max_body": Row("640", 640 * KIB, lambda whole: whole.bounds.body, NO_ROUTES),
    "max_state": Row("17", 17 * KIB, lambda whole: whole.bounds.state, NO_ROUTES),
    "body_time": Row("18", seconds(18), lambda whole: whole.bounds.body_time, NO_ROUTES),
    "head_time": Row("19", seconds(19), lambda whole: whole.bounds.head_time, NO_ROUTES),
    "max_connections": Row("21", 21, lambda whole: whole.bounds.connections, NO_ROUTES),
    "write_time": Row("22", seconds(22), lambda whole: whole.bounds.write_time, NO_ROUTES),
    "workers": Row("2", [2], lambda whole: whole.workers, ITS_PORT),
    "max_unread": Row("2048", 2048 * KIB, lambda whole: whole.bounds.unread, NO_ROUTES),
    # What is kept in memory.
    "remembered_events": Row(
        "23",
        23,
        lambda whole: whole.remembered_events,
        {"sweep": "a sweeper by itself reads no events"},
    ),
    # The webhook.
    "webhook_url": Row(
        "https://hooks.test/x", "https://hooks.test/x", lambda whole: whole.webhooks.options.url
    ),
    "webhook_secret": Row(
        "whsec_" + "a" * 32, (b64decode("a" * 32),), lambda whole: whole.webhooks.options.secrets
    ),
    "retention_file": Row(str(POLICY), POLICY, lambda whole: whole.retention._path),
    "retention_hooks": Row(
        "shop_hooks:HOOKS", HOOKS, lambda whole: whole.retention.hooked.beside.hooks
    ),
    "retention_memory": Row(
        "save",
        ["before_purge", "save_to_memory"],
        lambda whole: [step.name for step in whole.retention.hooked.beside.steps()],
    ),
    # Operators and the log.
    "admin_token": Row(
        SECRET, SECRET, lambda whole: whole.operators.token.get_secret_value(), NO_ROUTES
    ),
    "admin_port": Row("4321", ("127.0.0.2", 4321), lambda whole: whole.listens[1], ITS_PORT),
    "admin_host": Row("127.0.0.2", ("127.0.0.2", 4321), lambda whole: whole.listens[1], ITS_PORT),
    "log_format": Row("json", LogFormat.JSON, lambda whole: whole.logged[0].style, NO_LOG),
    "log_level": Row("debug", LogLevel.DEBUG, lambda whole: whole.logged[0].level, NO_LOG),
    "log_packages": Row("info", LogLevel.INFO, lambda whole: whole.logged[0].packages, NO_LOG),
    "log_error_texts": Row("true", True, lambda whole: whole.logged[0].error_texts, NO_LOG),
    "access_log": Row(
        "true",
        True,
        lambda whole: isinstance(whole.server.app, AccessLog),
        NO_LOG | {"sweep": "a sweeper answers no requests"},
    ),
    # What ADK's server is told.
    **{
        name: adk(name, text, expected)
        for name, text, expected in (
            ("artifact_service_uri", "gs://artifacts", "gs://artifacts"),
            ("memory_service_uri", "memory://m", "memory://m"),
            ("eval_storage_uri", "gs://evaluations", "gs://evaluations"),
            ("use_local_storage", "false", False),
            ("a2a", "true", True),
            ("task_store_uri", "memory://t", "memory://t"),
            ("otel_to_cloud", "true", True),
            ("trace_to_cloud", "true", True),
            ("url_prefix", "/adk", "/adk"),
            ("extra_plugins", "one.Plugin, two.plugin", ["one.Plugin", "two.plugin"]),
            ("reload_agents", "true", True),
            ("auto_create_session", "true", True),
            ("max_llm_calls", "0", 0),
            ("trigger_sources", "pubsub,eventarc", ["pubsub", "eventarc"]),
            ("trigger_oidc_audience", "here", "here"),
            ("trigger_oidc_service_accounts", "a@b.test", ["a@b.test"]),
            ("avatar_config", '{"avatarName": "Kai"}', AvatarConfig(avatar_name="Kai")),
            ("gemini_enterprise_app_name", "shop", "shop"),
            ("express_mode", "true", True),
            ("enable_features", "ONE,TWO", ("ONE", "TWO")),
            ("disable_features", "THREE", ("THREE",)),
        )
    },
    # Who calls.
    "auth": Row(
        "jwt",
        TokenAuthenticator,
        lambda whole: type(whole.gate.authenticator),
        NO_GATE,
        "jwt",
    ),
    "jwt_key": jwt(SECRET, SECRET, lambda options: options.key),
    "jwt_jwks_url": jwt(
        "https://keys.test/jwks", "https://keys.test/jwks", lambda options: options.jwks_url, "url"
    ),
    "jwt_algorithms": jwt("HS384", ("HS384",), lambda options: options.algorithms),
    "jwt_audience": jwt("here", ("here",), lambda options: options.audiences),
    "jwt_issuer": jwt("issuer", "issuer", lambda options: options.issuer),
    "jwt_user_claim": jwt("uid", "uid", lambda options: options.user_claim),
    "jwt_role_claim": jwt("roles", "roles", lambda options: options.role_claim),
    "jwt_leeway": jwt("7", seconds(7), lambda options: options.leeway),
    "jwt_cookie": jwt("token", "token", lambda options: options.cookie),
    "service_role": jwt("bots", "bots", lambda options: options.roles.service),
    "operator_role": jwt("admins", "admins", lambda options: options.roles.operator),
    "metrics_open": Row(
        "true", True, lambda whole: "/metrics" in whole.gate.open_paths, NO_GATE, "jwt"
    ),
    "metrics_token": Row(
        SECRET,
        SECRET,
        lambda whole: whole.gate.metrics_tokens[0].get_secret_value(),
        NO_GATE,
        "jwt",
    ),
    "app_state_by": Row("agents", "agents", lambda whole: whole.app_state_by, NO_GATE, "app state"),
    "auth_header": jwt("X-User", "X-User", lambda options: options.header, "header"),
    "auth_role_header": jwt("X-Role", "X-Role", lambda options: options.role_header, "header"),
    "auth_proxies": Row(
        "10.0.0.0/8",
        (["10.0.0.0/8"], HeaderAuthenticator, "10.0.0.0/8"),
        lambda whole: (
            whole.proxies,
            type(whole.gate.authenticator),
            str(whole.caller_options.proxies[0]),
        ),
        NO_GATE,
        "header",
    ),
}

BASES = {
    "url": {"LAPSE_AUTH": "jwt", "LAPSE_JWT_AUDIENCE": "a", "LAPSE_JWT_ISSUER": "i"},
    "header": {"LAPSE_AUTH": "header"},
}


def variable(name):
    return str(Settings.model_fields[name].validation_alias)


def environment(scenario):
    rows = {variable(name): row.text for name, row in ROWS.items() if row.scenario == scenario}
    return BASES.get(scenario, {}) | rows


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory):
    """Return a function that gives what a way of running Lapse makes of a scenario's settings."""
    made = {}

    def make(scenario, way):
        if (scenario, way) not in made:
            with pytest.MonkeyPatch.context() as monkeypatch:
                monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
                for name in [*os.environ]:
                    if name.startswith(("LAPSE_", "SESSION_CLEANUP_")):
                        monkeypatch.delenv(name)
                for name, text in environment(scenario).items():
                    monkeypatch.setenv(name, text)
                made[scenario, way] = WAYS[way](monkeypatch)
        return made[scenario, way]

    return make


def test_every_setting_has_a_row_and_every_row_a_setting():
    """Seen to fail with a setting more, and with a row more."""
    assert ROWS.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_value_in_a_row_differs_from_the_default(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    default = getattr(Settings(), name)
    monkeypatch.setenv(variable(name), ROWS[name].text)
    assert getattr(Settings(), name) != default


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_reaches_its_object(name, way, whole_of):
    """Seen to fail with brakes, adoption and the default TTL that one way forgets.

    And with `mount` that takes neither `default_to` of the service nor that of its store.
    """
    row = ROWS[name]
    if way in row.unused:
        assert row.unused[way]
        return
    assert row.find(whole_of(row.scenario, way)) == row.expected
