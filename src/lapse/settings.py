"""Every setting, read from the environment and `.env.local`, validated all at once."""

from __future__ import annotations

import difflib
import os
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from lapse.auth.options import AuthMode
from lapse.auth.settings import AuthSettings
from lapse.core.errors import InvalidValueError, SettingsError
from lapse.core.lifecycle import DEFAULT_HORIZON, Rules
from lapse.core.minutes import DEFAULT_TTL
from lapse.core.setting_types import (
    Hours,
    Limit,
    Minutes,
    Seconds,
    SecondsOrNone,
    Share,
    ShareOrWhole,
    WarningMinutes,
    doubt_of,
)
from lapse.dashboard.options import AdminToken, OperatorOptions, without_password
from lapse.limits.rules import KIB, Bounds
from lapse.notices.store import WatchOptions
from lapse.overview.store import BrakeOptions
from lapse.quotas.rules import USUAL, Quotas
from lapse.runs.store import RunLimits
from lapse.store.options import ConnectionOptions
from lapse.telemetry.logs import LogFormat
from lapse.ttl import Policy, Targets
from lapse.ttl.decision import USUAL_FLOOR

ENV_FILE: Final = ".env.local"
_PREFIXES: Final = ("LAPSE_", "SESSION_CLEANUP_")


class Adopt(StrEnum):
    """Which sessions that stock ADK leaves behind a server adopts."""

    OFF = "off"
    NEW = "new"
    ALL = "all"


class Settings(AuthSettings):
    """The settings of one process; `README.md` describes each."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    cleanup_enabled: bool = Field(default=True, validation_alias="SESSION_CLEANUP_ENABLED")
    ttl: Minutes = Field(default=DEFAULT_TTL, validation_alias="SESSION_CLEANUP_TTL_MINUTES")
    store_url: str = Field(
        default="sqlite:///lapse.db", validation_alias="LAPSE_STORE_URL", repr=False
    )
    horizon: Hours = Field(default=DEFAULT_HORIZON, validation_alias="LAPSE_RESTORE_HOURS")
    pool_size: int = Field(default=10, ge=1, le=1000, validation_alias="LAPSE_POOL_SIZE")
    statement_timeout: Seconds = Field(
        default=timedelta(seconds=10), validation_alias="LAPSE_STATEMENT_TIMEOUT_SECONDS"
    )
    connect_timeout: Seconds = Field(
        default=timedelta(seconds=5), validation_alias="LAPSE_CONNECT_TIMEOUT_SECONDS"
    )
    statement_cache: int = Field(
        default=100, ge=0, le=10_000, validation_alias="LAPSE_STATEMENT_CACHE"
    )
    runs_per_process: int = Field(
        default=100, ge=1, le=10_000, validation_alias="LAPSE_RUNS_PER_PROCESS"
    )
    runs_per_user: int = Field(default=10, ge=1, le=10_000, validation_alias="LAPSE_RUNS_PER_USER")
    run_duration: Seconds = Field(
        default=timedelta(minutes=10), validation_alias="LAPSE_RUN_SECONDS"
    )
    run_grace: SecondsOrNone = Field(
        default=timedelta(seconds=10), validation_alias="LAPSE_RUN_GRACE_SECONDS"
    )
    run_queue: int = Field(default=4, ge=0, le=1000, validation_alias="LAPSE_RUN_QUEUE")
    warn_before: WarningMinutes = Field(
        default=WatchOptions().warn_before, validation_alias="LAPSE_WARN_MINUTES"
    )
    heartbeat: Seconds = Field(
        default=WatchOptions().heartbeat, validation_alias="LAPSE_HEARTBEAT_SECONDS"
    )
    streams_per_session: int = Field(
        default=WatchOptions().per_session,
        ge=1,
        le=1000,
        validation_alias="LAPSE_STREAMS_PER_SESSION",
    )
    streams_per_user: int = Field(
        default=WatchOptions().per_user, ge=1, le=10_000, validation_alias="LAPSE_STREAMS_PER_USER"
    )
    waiting_per_user: Limit = Field(default=None, validation_alias="LAPSE_WAITING_PER_USER")
    waiting_per_address: Limit = Field(default=None, validation_alias="LAPSE_WAITING_PER_ADDRESS")
    creates_per_user: Limit = Field(
        default=None, validation_alias="LAPSE_CREATES_PER_MINUTE_PER_USER"
    )
    creates_per_address: Limit = Field(
        default=None, validation_alias="LAPSE_CREATES_PER_MINUTE_PER_ADDRESS"
    )
    creates: Limit = Field(default=None, validation_alias="LAPSE_CREATES_PER_MINUTE")
    reuse_waiting: bool = Field(default=False, validation_alias="LAPSE_REUSE_WAITING")
    sweeper: bool = Field(default=True, validation_alias="LAPSE_SWEEPER")
    brake_share: ShareOrWhole = Field(
        default=BrakeOptions().share, validation_alias="LAPSE_BRAKE_SHARE"
    )
    brake_sessions: int = Field(
        default=BrakeOptions().sessions, ge=0, validation_alias="LAPSE_BRAKE_SESSIONS"
    )
    brake_jump: Minutes = Field(
        default=BrakeOptions().jump, validation_alias="LAPSE_BRAKE_CLOCK_MINUTES"
    )
    adopt: Adopt = Field(default=Adopt.OFF, validation_alias="LAPSE_ADOPT")
    artifacts: bool = Field(default=True, validation_alias="LAPSE_DELETE_ARTIFACTS")
    log_format: LogFormat = Field(default=LogFormat.CONSOLE, validation_alias="LAPSE_LOG_FORMAT")
    ttl_policy: Policy = Field(default=Policy.FIXED, validation_alias="LAPSE_TTL_POLICY")
    ttl_soft_target: Share = Field(default=0.05, validation_alias="LAPSE_TTL_SOFT_TARGET")
    ttl_hard_target: Share = Field(default=0.005, validation_alias="LAPSE_TTL_HARD_TARGET")
    ttl_confidence: Share = Field(default=0.95, validation_alias="LAPSE_TTL_CONFIDENCE")
    ttl_floor: Minutes = Field(default=USUAL_FLOOR, validation_alias="LAPSE_TTL_FLOOR_MINUTES")
    ttl_cap: Hours | None = Field(default=None, validation_alias="LAPSE_TTL_CAP_HOURS")
    ttl_design_effect: float = Field(
        default=1.0, ge=1, le=1000, validation_alias="LAPSE_TTL_DESIGN_EFFECT"
    )

    admin_token: AdminToken | None = Field(
        default=None, repr=False, validation_alias="LAPSE_ADMIN_TOKEN"
    )
    admin_port: int | None = Field(
        default=None, ge=0, le=65535, validation_alias="LAPSE_ADMIN_PORT"
    )
    admin_host: str = Field(default="127.0.0.1", validation_alias="LAPSE_ADMIN_HOST")

    max_body: int = Field(
        default=Bounds().body // KIB, ge=64, le=1024 * KIB, validation_alias="LAPSE_MAX_BODY_KIB"
    )
    max_state: int = Field(
        default=Bounds().state // KIB, ge=1, le=1024 * KIB, validation_alias="LAPSE_MAX_STATE_KIB"
    )
    body_time: Seconds = Field(default=Bounds().body_time, validation_alias="LAPSE_BODY_SECONDS")
    head_time: Seconds = Field(default=Bounds().head_time, validation_alias="LAPSE_HEADER_SECONDS")
    max_connections: int = Field(
        default=Bounds().connections, ge=10, le=1_000_000, validation_alias="LAPSE_MAX_CONNECTIONS"
    )

    @property
    def rules(self) -> Rules:
        """Return what a store is to enforce."""
        return Rules(horizon=self.horizon, enforced=self.cleanup_enabled, artifacts=self.artifacts)

    @property
    def targets(self) -> Targets:
        """Return what the TTL policy is to aim at.

        Where the policy is fixed, the limits that only matter to others give way to the horizon.
        """
        cap = self.horizon if self.ttl_cap is None else self.ttl_cap
        floor = self.ttl_floor
        if self.ttl_policy is Policy.FIXED:
            cap = min(cap, self.horizon)
            floor = min(floor, cap)
        return Targets(
            soft=self.ttl_soft_target,
            hard=self.ttl_hard_target,
            doubt=doubt_of(self.ttl_confidence),
            floor=floor,
            cap=cap,
            horizon=self.horizon,
            design_effect=self.ttl_design_effect,
            default=self.ttl,
        )

    @property
    def brakes(self) -> BrakeOptions:
        """Return when a sweep is to stop before what cannot be undone."""
        return BrakeOptions(self.brake_share, self.brake_sessions, self.brake_jump)

    @property
    def connection(self) -> ConnectionOptions:
        """Return how a store that is a server is to be reached."""
        return ConnectionOptions(
            pool_size=self.pool_size,
            statement_timeout=self.statement_timeout,
            connect_timeout=self.connect_timeout,
            statement_cache=self.statement_cache,
        )

    @property
    def run_limits(self) -> RunLimits:
        """Return how much of running one process does."""
        return RunLimits(
            per_process=self.runs_per_process,
            per_user=self.runs_per_user,
            duration=self.run_duration,
            grace=self.run_grace,
            queue=self.run_queue,
        )

    @property
    def quotas(self) -> Quotas:
        """Return how much of creating sessions is allowed.

        What is not set is as usual where users are authenticated. Elsewhere anyone may call
        themselves anything, and it is not limited.
        """
        usual = Quotas() if self.auth is AuthMode.NONE else USUAL

        def limit(given: int | None, otherwise: int | None) -> int | None:
            return otherwise if given is None else given or None

        return Quotas(
            waiting_per_user=limit(self.waiting_per_user, usual.waiting_per_user),
            waiting_per_address=limit(self.waiting_per_address, usual.waiting_per_address),
            creates_per_user=limit(self.creates_per_user, usual.creates_per_user),
            creates_per_address=limit(self.creates_per_address, usual.creates_per_address),
            creates=limit(self.creates, usual.creates),
            reuse=self.reuse_waiting,
        )

    @property
    def operators(self) -> OperatorOptions:
        """Return what opens the operators' pages; a port of their own is for who listens."""
        return OperatorOptions(token=self.admin_token, store=without_password(self.store_url))

    @property
    def watch(self) -> WatchOptions:
        """Return how sessions are to be watched."""
        return WatchOptions(
            warn_before=self.warn_before,
            heartbeat=self.heartbeat,
            per_session=self.streams_per_session,
            per_user=self.streams_per_user,
        )

    @property
    def bounds(self) -> Bounds:
        """Return how much of a request is taken in."""
        return Bounds(
            body=self.max_body * KIB,
            state=self.max_state * KIB,
            body_time=self.body_time,
            head_time=self.head_time,
            connections=self.max_connections,
        )


def setting_names() -> list[str]:
    """Return the environment variable of each setting, in the order of the fields."""
    return [str(field.validation_alias) for field in Settings.model_fields.values()]


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides`, by field name, win where they are not None.

    Raises:
        SettingsError: values are wrong, or variables look like settings but are none. It
            lists every problem.
    """
    problems = [_unknown(name) for name in sorted(_given_names() - set(setting_names()))]
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems += [_problem(detail) for detail in error.errors()]
    else:
        problems += _disagreements(settings)
        if not problems:
            return settings
    raise SettingsError(problems)


def _disagreements(settings: Settings) -> list[str]:
    """Return what is wrong with settings that are right by themselves."""
    return [*settings.auth_problems(), *_ttl_disagreements(settings)]


def _ttl_disagreements(settings: Settings) -> list[str]:
    if settings.ttl_policy is Policy.FIXED:
        return []
    name = f"LAPSE_TTL_POLICY={str(settings.ttl_policy)!r}"
    if not settings.horizon:
        why = "late messages are never seen, and the TTL would only ever get shorter"
        return [f"{name}: needs LAPSE_RESTORE_HOURS above 0; where nothing is restorable, {why}"]
    cap = settings.horizon if settings.ttl_cap is None else settings.ttl_cap
    if settings.ttl_floor <= cap <= settings.horizon:
        return []
    order = (
        f"LAPSE_TTL_FLOOR_MINUTES ({settings.ttl_floor}), LAPSE_TTL_CAP_HOURS ({cap}) and "
        f"LAPSE_RESTORE_HOURS ({settings.horizon})"
    )
    return [f"{name}: needs {order} in this order, the last one the longest"]


def _given_names() -> set[str]:
    names = (*os.environ, *dotenv_values(ENV_FILE))
    return {name.upper() for name in names if name.upper().startswith(_PREFIXES)}


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, setting_names(), n=1, cutoff=0)
    return f"{name} is not a setting; did you mean {near[0]}?"


def _problem(detail: Any) -> str:
    name = str(detail["loc"][0])
    fields = Settings.model_fields.items()
    field = next((known for own, known in fields if name in {own, known.validation_alias}), None)
    name = name if field is None else str(field.validation_alias)
    error = detail.get("ctx", {}).get("error")
    reason = error.reason if isinstance(error, InvalidValueError) else detail["msg"]
    # A setting that is not shown is a secret.
    given = f"={detail['input']!r:.60}" if field is None or field.repr else ""
    return f"{name}{given}: {reason[:1].lower()}{reason[1:]}"
