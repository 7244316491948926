"""Every setting: its default, its values, and the errors of wrong ones."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from lapse.adoption.settings import Adopt
from lapse.core.errors import SettingsError
from lapse.core.lifecycle import Rules
from lapse.limits.rules import Bounds
from lapse.notices.rules import WatchOptions
from lapse.quotas.rules import USUAL, Quotas
from lapse.settings import Settings, load_settings, setting_names
from lapse.store.options import PostgresFeature
from lapse.telemetry.logs import LogFormat
from lapse.ttl import Policy, Targets


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    """Start from no settings at all, in an empty directory."""
    for name in list(os.environ):
        if name.upper().startswith(("LAPSE_", "SESSION_CLEANUP_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def set_variable(tmp_path, monkeypatch):
    """Return a function that sets a variable in the environment or in `.env.local`."""

    def give(where, name, text):
        if where == "environment":
            monkeypatch.setenv(name, text)
        else:
            (tmp_path / ".env.local").write_text(f'{name}="{text}"\n', encoding="utf-8")

    return give


def problems():
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.problems


def test_the_documented_defaults_hold_without_any_setting():
    settings = load_settings()
    assert settings.cleanup_enabled is True
    assert settings.ttl == timedelta(minutes=30)
    assert settings.store_url == "sqlite:///lapse.db"
    assert settings.horizon == timedelta(hours=24)
    assert settings.sweeper is True
    assert settings.log_format is LogFormat.CONSOLE
    assert settings.rules == Rules(artifacts=True)
    assert settings.adopt is Adopt.OFF
    assert settings.bounds == Bounds()
    assert settings.watch == WatchOptions()
    assert settings.watch.warn_before == timedelta(minutes=5)


@pytest.mark.parametrize("where", ["environment", "file"])
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SESSION_CLEANUP_ENABLED", "false", {"cleanup_enabled": False}),
        (
            "LAPSE_POSTGRES_WITHOUT",
            "listen, unlogged_tables",
            {"postgres_without": {PostgresFeature.LISTEN, PostgresFeature.UNLOGGED_TABLES}},
        ),
        ("SESSION_CLEANUP_ENABLED", "TRUE", {"cleanup_enabled": True}),
        ("SESSION_CLEANUP_ENABLED", "0", {"cleanup_enabled": False}),
        ("SESSION_CLEANUP_TTL_MINUTES", "5", {"ttl": timedelta(minutes=5)}),
        ("SESSION_CLEANUP_TTL_MINUTES", "0.05", {"ttl": timedelta(seconds=3)}),
        ("LAPSE_STORE_URL", "sqlite:////tmp/x.db", {"store_url": "sqlite:////tmp/x.db"}),
        ("LAPSE_RESTORE_HOURS", "0", {"horizon": timedelta(0)}),
        ("LAPSE_RESTORE_HOURS", "1.5", {"horizon": timedelta(minutes=90)}),
        ("LAPSE_RUN_SECONDS", "0.5", {"run_duration": timedelta(seconds=0.5)}),
        ("LAPSE_RUN_GRACE_SECONDS", "0", {"run_grace": timedelta(0)}),
        ("LAPSE_RUNS_PER_USER", "3", {"runs_per_user": 3}),
        ("LAPSE_RUNS_PER_PROCESS", "7", {"runs_per_process": 7}),
        ("LAPSE_RUN_QUEUE", "0", {"run_queue": 0}),
        ("LAPSE_WARN_MINUTES", "0.5", {"warn_before": timedelta(seconds=30)}),
        ("LAPSE_WARN_MINUTES", "0", {"warn_before": timedelta(0)}),
        ("LAPSE_HEARTBEAT_SECONDS", "2.5", {"heartbeat": timedelta(seconds=2.5)}),
        ("LAPSE_STREAMS_PER_SESSION", "1", {"streams_per_session": 1}),
        ("LAPSE_STREAMS_PER_USER", "40", {"streams_per_user": 40}),
        ("LAPSE_WAITING_PER_USER", "3", {"waiting_per_user": 3}),
        ("LAPSE_WAITING_PER_ADDRESS", "0", {"waiting_per_address": 0}),
        ("LAPSE_CREATES_PER_MINUTE_PER_USER", "1", {"creates_per_user": 1}),
        ("LAPSE_CREATES_PER_MINUTE_PER_ADDRESS", "9", {"creates_per_address": 9}),
        ("LAPSE_CREATES_PER_MINUTE", "99", {"creates": 99}),
        ("LAPSE_REUSE_WAITING", "on", {"reuse_waiting": True}),
        ("LAPSE_MAX_BODY_KIB", "64", {"max_body": 64}),
        ("LAPSE_MAX_STATE_KIB", "1", {"max_state": 1}),
        ("LAPSE_BODY_SECONDS", "2.5", {"body_time": timedelta(seconds=2.5)}),
        ("LAPSE_HEADER_SECONDS", "5", {"head_time": timedelta(seconds=5)}),
        ("LAPSE_MAX_CONNECTIONS", "99", {"max_connections": 99}),
        ("LAPSE_SWEEPER", "off", {"sweeper": False}),
        ("LAPSE_SWEEPER", "on", {"sweeper": True}),
        ("LAPSE_LOG_FORMAT", "json", {"log_format": LogFormat.JSON}),
        ("LAPSE_TTL_POLICY", "shadow", {"ttl_policy": Policy.SHADOW}),
        ("LAPSE_TTL_SOFT_TARGET", "2.5%", {"ttl_soft_target": 0.025}),
        ("LAPSE_TTL_HARD_TARGET", "0.001", {"ttl_hard_target": 0.001}),
        ("LAPSE_TTL_CONFIDENCE", "99%", {"ttl_confidence": 0.99}),
        ("LAPSE_TTL_FLOOR_MINUTES", "2", {"ttl_floor": timedelta(minutes=2)}),
        ("LAPSE_TTL_CAP_HOURS", "12", {"ttl_cap": timedelta(hours=12)}),
        ("LAPSE_TTL_DESIGN_EFFECT", "2", {"ttl_design_effect": 2}),
    ],
)
def test_a_setting_is_read(set_variable, where, name, text, expected):
    set_variable(where, name, text)
    assert load_settings().model_dump().items() >= expected.items()


def test_quotas_are_on_if_users_are_authenticated(monkeypatch):
    assert load_settings().quotas == Quotas()
    monkeypatch.setenv("LAPSE_CREATES_PER_MINUTE", "50")
    assert load_settings().quotas == Quotas(creates=50)
    monkeypatch.setenv("LAPSE_AUTH", "header")
    monkeypatch.setenv("LAPSE_AUTH_PROXIES", "127.0.0.1")
    monkeypatch.setenv("LAPSE_WAITING_PER_ADDRESS", "0")
    monkeypatch.setenv("LAPSE_REUSE_WAITING", "true")
    expected = replace(USUAL, creates=50, waiting_per_address=None, reuse=True)
    assert load_settings().quotas == expected
    assert (USUAL.waiting_per_user, USUAL.waiting_per_address) == (5, 20)
    assert (USUAL.creates_per_user, USUAL.creates_per_address) == (10, 30)


def test_the_documented_names_are_settings():
    assert set(setting_names()) >= {
        "SESSION_CLEANUP_ENABLED",
        "SESSION_CLEANUP_TTL_MINUTES",
        "LAPSE_STORE_URL",
        "LAPSE_RESTORE_HOURS",
        "LAPSE_WARN_MINUTES",
        "LAPSE_SWEEPER",
        "LAPSE_LOG_FORMAT",
    }


def test_the_environment_wins_over_the_file_and_an_option_over_both(tmp_path, monkeypatch):
    (tmp_path / ".env.local").write_text("LAPSE_STORE_URL=sqlite:///file.db\n", encoding="utf-8")
    assert load_settings().store_url == "sqlite:///file.db"
    monkeypatch.setenv("LAPSE_STORE_URL", "sqlite:///environment.db")
    assert load_settings().store_url == "sqlite:///environment.db"
    assert load_settings(store_url="sqlite:///option.db").store_url == "sqlite:///option.db"
    assert load_settings(store_url=None).store_url == "sqlite:///environment.db"


def test_an_empty_value_counts_as_unset(monkeypatch):
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "")
    monkeypatch.setenv("LAPSE_STORE_URL", "")
    assert load_settings() == load_settings(store_url="sqlite:///lapse.db")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SESSION_CLEANUP_TTL_MINUTES", "0"),
        ("LAPSE_POSTGRES_WITHOUT", "notify"),
        ("SESSION_CLEANUP_TTL_MINUTES", "-1"),
        ("SESSION_CLEANUP_TTL_MINUTES", "nan"),
        ("SESSION_CLEANUP_TTL_MINUTES", "inf"),
        ("SESSION_CLEANUP_TTL_MINUTES", "soon"),
        ("SESSION_CLEANUP_TTL_MINUTES", "525600"),
        ("SESSION_CLEANUP_TTL_MINUTES", "1e-9"),
        ("SESSION_CLEANUP_ENABLED", "perhaps"),
        ("LAPSE_RESTORE_HOURS", "-1"),
        ("LAPSE_RESTORE_HOURS", "nan"),
        ("LAPSE_RESTORE_HOURS", "day"),
        ("LAPSE_RESTORE_HOURS", "100000"),
        ("LAPSE_WAITING_PER_USER", "-1"),
        ("LAPSE_WAITING_PER_ADDRESS", "few"),
        ("LAPSE_CREATES_PER_MINUTE", "1.5"),
        ("LAPSE_CREATES_PER_MINUTE_PER_USER", "10000000"),
        ("LAPSE_RUN_SECONDS", "0"),
        ("LAPSE_RUN_SECONDS", "soon"),
        ("LAPSE_RUN_GRACE_SECONDS", "-1"),
        ("LAPSE_RUNS_PER_USER", "0"),
        ("LAPSE_RUNS_PER_PROCESS", "many"),
        ("LAPSE_RUN_QUEUE", "-1"),
        ("LAPSE_WARN_MINUTES", "-1"),
        ("LAPSE_WARN_MINUTES", "nan"),
        ("LAPSE_WARN_MINUTES", "early"),
        ("LAPSE_HEARTBEAT_SECONDS", "0"),
        ("LAPSE_STREAMS_PER_SESSION", "0"),
        ("LAPSE_STREAMS_PER_USER", "0"),
        ("LAPSE_MAX_BODY_KIB", "63"),
        ("LAPSE_MAX_STATE_KIB", "0"),
        ("LAPSE_BODY_SECONDS", "0"),
        ("LAPSE_HEADER_SECONDS", "-1"),
        ("LAPSE_MAX_CONNECTIONS", "9"),
        ("LAPSE_SWEEPER", "sometimes"),
        ("LAPSE_LOG_FORMAT", "xml"),
        ("LAPSE_TTL_POLICY", "clever"),
        ("LAPSE_TTL_SOFT_TARGET", "5"),
        ("LAPSE_TTL_SOFT_TARGET", "0%"),
        ("LAPSE_TTL_HARD_TARGET", "few"),
        ("LAPSE_TTL_CONFIDENCE", "nan"),
        ("LAPSE_TTL_CAP_HOURS", "-1"),
        ("LAPSE_TTL_DESIGN_EFFECT", "0.5"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_setting(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    (problem,) = problems()
    assert problem.startswith(f"{name}=")
    assert text in problem


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("SESSION_CLEANUP_TTL_MINUTE", "SESSION_CLEANUP_TTL_MINUTES"),
        ("SESSION_CLEANUP_TTL", "SESSION_CLEANUP_TTL_MINUTES"),
        ("LAPSE_STORE", "LAPSE_STORE_URL"),
        ("LAPSE_RESTORE_HOUR", "LAPSE_RESTORE_HOURS"),
        ("LAPSE_LOGFORMAT", "LAPSE_LOG_FORMAT"),
        ("lapse_sweepr", "LAPSE_SWEEPER"),
    ],
)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_an_unknown_setting_is_refused_with_the_nearest_known_name(
    set_variable, where, wrong, right
):
    set_variable(where, wrong, "1")
    assert problems() == (f"{wrong.upper()} is not a setting; did you mean {right}?",)


def test_a_name_given_in_python_is_a_fields_or_a_variables():
    """Seen to fail without the check in `Settings`: the name was ignored, and the limit with it."""
    for name in ("creates_per_user", "LAPSE_CREATES_PER_MINUTE_PER_USER"):
        assert Settings(**{name: 3}).creates_per_user == 3
    with pytest.raises(SettingsError) as caught:
        Settings(creates_per_usr=3)
    told = "creates_per_usr is not a setting; did you mean creates_per_user?"
    assert caught.value.problems == (told,)


def test_the_default_targets_are_the_documented_ones():
    assert load_settings().targets == Targets()


@pytest.mark.parametrize("policy", ["shadow", "adaptive"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LAPSE_RESTORE_HOURS", "0"),
        ("LAPSE_RESTORE_HOURS", "0.01"),
        ("LAPSE_TTL_CAP_HOURS", "25"),
        ("LAPSE_TTL_FLOOR_MINUTES", "1441"),
    ],
)
def test_a_learning_policy_needs_a_range_of_ttls_and_a_horizon(monkeypatch, policy, name, text):
    monkeypatch.setenv("LAPSE_TTL_POLICY", policy)
    monkeypatch.setenv(name, text)
    (problem,) = problems()
    assert problem.startswith(f"LAPSE_TTL_POLICY='{policy}'")
    assert name in problem
    monkeypatch.setenv("LAPSE_TTL_POLICY", "fixed")
    targets = load_settings().targets
    assert targets.floor <= targets.cap <= targets.horizon


def test_all_problems_of_the_settings_are_reported_together(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "soon")
    monkeypatch.setenv("LAPSE_SWEPER", "off")
    monkeypatch.setenv("LAPSE_RESTORE_HOURS", "-1")
    (tmp_path / ".env.local").write_text(
        "LAPSE_LOG_FORMAT=xml\nSESSION_CLEANUP_ENABLE=no\n", encoding="utf-8"
    )
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert len(caught.value.problems) == 5
    message = str(caught.value)
    assert message.startswith("5 problems in the settings:\n")
    for name in (
        "SESSION_CLEANUP_TTL_MINUTES",
        "LAPSE_SWEPER",
        "LAPSE_RESTORE_HOURS",
        "LAPSE_LOG_FORMAT",
        "SESSION_CLEANUP_ENABLE",
    ):
        assert name in message


SERVICES = {
    # A service `lapse` in Kubernetes, with a port that has a name.
    "LAPSE_SERVICE_HOST": "10.96.0.7",
    "LAPSE_SERVICE_PORT": "8000",
    "LAPSE_SERVICE_PORT_HTTP_METRICS": "9000",
    "LAPSE_PORT": "tcp://10.96.0.7:8000",
    "LAPSE_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "LAPSE_PORT_8000_TCP_PROTO": "tcp",
    "LAPSE_PORT_8000_TCP_PORT": "8000",
    "LAPSE_PORT_8000_TCP_ADDR": "10.96.0.7",
    # Services `lapse-sweeper` and `lapse-admin`; the last one has the name of a setting.
    "LAPSE_SWEEPER_SERVICE_HOST": "fd00::7",
    "LAPSE_SWEEPER_PORT": "udp://[fd00::7]:53",
    "LAPSE_SWEEPER_PORT_53_UDP_ADDR": "fd00::7",
    "LAPSE_ADMIN_PORT": "tcp://10.96.0.8:80",
    # docker run --link lapse:lapse
    "LAPSE_NAME": "/mine/lapse",
    "LAPSE_ENV_PATH": "/usr/bin:/bin",
    "LAPSE_ENV_LAPSE_STORE_URL": "sqlite:///x.db",
    "LAPSE_PORT_1_TCP_START": "tcp://172.17.0.5:1",
    "LAPSE_PORT_1_TCP_PORT_END": "9",
}


def test_variables_that_kubernetes_and_docker_set_for_services_are_no_misspelt_settings(
    monkeypatch,
):
    """Seen to fail without the exception: the start was refused next to a service `lapse`."""
    for name, value in SERVICES.items():
        monkeypatch.setenv(name, value)
    assert load_settings().admin_port is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAPSE_PORT", "8000"),
        ("LAPSE_PORT", "http://10.0.0.1:80"),
        ("LAPSE_ADMN_PORT", "9000"),
        ("LAPSE_SERVICE_HOST", "lapse.test"),
        ("LAPSE_SERVICE_PORT", "on"),
        ("LAPSE_SERVICE_PORT", "70000"),
        ("LAPSE_PORT_8000_TCP_PROTO", "http"),
        ("LAPSE_NAME", "lapse"),
        ("LAPSE_ENV_PATH", "/usr/bin"),
        ("LAPSE_STORE_NAME", "postgresql://u:p@h/d"),
    ],
)
def test_a_misspelt_setting_is_refused_even_if_it_looks_like_a_services_variable(
    monkeypatch, name, value
):
    """Seen to fail where the name alone counts."""
    monkeypatch.setenv(name, value)
    (problem,) = problems()
    assert f"{name} is not a setting" in problem


def test_the_file_of_settings_has_no_variables_of_services(tmp_path):
    (tmp_path / ".env.local").write_text("LAPSE_PORT=tcp://10.96.0.7:8000\n", encoding="utf-8")
    assert "LAPSE_PORT is not a setting" in problems()[0]


def test_variables_of_other_programs_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPSED", "1")
    (tmp_path / ".env.local").write_text("GOOGLE_API_KEY=x\nPATH_TO=1\n", encoding="utf-8")
    assert load_settings() == load_settings()
