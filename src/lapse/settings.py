"""All settings, read from the environment and `.env.local`, and validated together."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from lapse.adk.settings import AdkSettings
from lapse.adoption.settings import Adopt, AdoptionSettings
from lapse.artifacts.settings import ArtifactSettings
from lapse.auth.options import AuthOptions
from lapse.conversations.settings import ConversationSettings
from lapse.core.errors import InvalidValueError, SettingsError
from lapse.core.lifecycle import Rules
from lapse.core.service_variables import service_variables
from lapse.dashboard.settings import DashboardSettings
from lapse.erasure.settings import ErasureSettings
from lapse.idempotency.settings import IdempotencySettings
from lapse.limits.settings import LimitSettings
from lapse.notices.settings import NoticeSettings
from lapse.overview.settings import ProcessSettings
from lapse.quotas.settings import QuotaSettings
from lapse.retention.settings import RetentionSettings
from lapse.runs.settings import RunSettings
from lapse.sweep.settings import SweepSettings
from lapse.telemetry.settings import LogSettings
from lapse.ttl.settings import TtlSettings
from lapse.webhooks.settings import WebhookSettings

ENV_FILE: Final = ".env.local"
_PREFIXES: Final = ("LAPSE_", "SESSION_CLEANUP_")


class Settings(
    TtlSettings,
    RunSettings,
    NoticeSettings,
    QuotaSettings,
    SweepSettings,
    AdoptionSettings,
    ArtifactSettings,
    LogSettings,
    DashboardSettings,
    LimitSettings,
    AdkSettings,
    IdempotencySettings,
    ConversationSettings,
    WebhookSettings,
    RetentionSettings,
    ErasureSettings,
    ProcessSettings,
):
    """The settings of one process; `docs/settings.md` describes each.

    Made directly, it takes its fields by their names and reads the others from the environment.
    `load_settings` also looks for unknown variables and tells all problems at once.

    Raises:
        SettingsError: a name that is given is that of no field.
    """

    model_config = SettingsConfigDict(env_file=ENV_FILE)

    def __init__(self, **given: Any) -> None:
        fields = type(self).model_fields
        known = [*fields, *(str(field.validation_alias) for field in fields.values())]
        unknown = [name for name in given if name not in known and not name.startswith("_")]
        if unknown:
            raise SettingsError([_unknown(name, known) for name in unknown])
        super().__init__(**given)

    @property
    def rules(self) -> Rules:
        """Return the rules that a store enforces."""
        return replace(super().rules, artifacts=self.artifacts)

    @property
    def authentication(self) -> AuthOptions:
        """Return how callers are authenticated; the operators' token reads `/metrics`, too."""
        options = super().authentication
        if self.admin_token is None:
            return options
        return replace(options, metrics_tokens=(*options.metrics_tokens, self.admin_token))

    def problems(self, *, converses: bool = False) -> list[str]:
        """Return what is wrong with the settings together.

        `converses` tells that used sessions live in another session service, whatever the settings
        say.
        """
        found = super().problems()
        if not (converses or self.conversations_uri):
            return found
        if self.retention_file is not None:
            found.append(
                "LAPSE_RETENTION_FILE: not with this service: only ADK's tables in the store are "
                "archived from, and used sessions live in another session service; do not set it"
            )
        if self.adopt is not Adopt.OFF:
            found.append(
                "LAPSE_ADOPT: not with this service: only ADK's tables in the store are adopted "
                "from, and used sessions live in another session service; do not set it"
            )
        return found


def setting_names() -> list[str]:
    """Return the environment variable of each setting, in the order of the fields."""
    return [str(field.validation_alias) for field in Settings.model_fields.values()]


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides`, by field name, win if they are not None.

    Raises:
        SettingsError: values are wrong, or variables are named like settings but are none. It
            lists every problem.
    """
    problems = unknown_settings()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems += [_problem(detail) for detail in error.errors()]
    else:
        problems += settings.problems()
        if not problems:
            return settings
    raise SettingsError(problems)


def unknown_settings() -> list[str]:
    """Return what is wrong with variables that are named like settings and are none."""
    known = setting_names()
    return [_unknown(name, known) for name in sorted(_given_names() - set(known))]


def _given_names() -> set[str]:
    names = (os.environ.keys() - service_variables(os.environ)) | dotenv_values(ENV_FILE).keys()
    return {name.upper() for name in names if name.upper().startswith(_PREFIXES)}


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"{name} is not a setting; did you mean {near[0]}?"


def _problem(detail: Any) -> str:
    name = str(detail["loc"][0])
    fields = Settings.model_fields.items()
    field = next((known for own, known in fields if name in {own, known.validation_alias}), None)
    name = name if field is None else str(field.validation_alias)
    error = detail.get("ctx", {}).get("error")
    reason = error.reason if isinstance(error, InvalidValueError) else detail["msg"]
    # A field without `repr` is a secret, whose value is not shown.
    given = f"={detail['input']!r:.60}" if field is None or field.repr else ""
    return f"{name}{given}: {reason[:1].lower()}{reason[1:]}"
