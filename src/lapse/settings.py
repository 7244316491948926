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
from lapse.adoption.settings import AdoptionSettings
from lapse.artifacts.settings import ArtifactSettings
from lapse.core.errors import InvalidValueError, SettingsError
from lapse.core.lifecycle import Rules
from lapse.core.service_variables import service_variables
from lapse.dashboard.settings import DashboardSettings
from lapse.idempotency.settings import IdempotencySettings
from lapse.limits.settings import LimitSettings
from lapse.notices.settings import NoticeSettings
from lapse.quotas.settings import QuotaSettings
from lapse.runs.settings import RunSettings
from lapse.sweep.settings import SweepSettings
from lapse.telemetry.settings import LogSettings
from lapse.ttl.settings import TtlSettings

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
):
    """The settings of one process; `docs/settings.md` describes each.

    Made directly, it takes its fields by their names and reads the others from the environment.
    `load_settings` also looks for unknown names and tells all problems at once.
    """

    model_config = SettingsConfigDict(env_file=ENV_FILE)

    @property
    def rules(self) -> Rules:
        """Return the rules that a store enforces."""
        return replace(super().rules, artifacts=self.artifacts)


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
    return [_unknown(name) for name in sorted(_given_names() - set(setting_names()))]


def _given_names() -> set[str]:
    names = (os.environ.keys() - service_variables(os.environ)) | dotenv_values(ENV_FILE).keys()
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
    # A field without `repr` is a secret, whose value is not shown.
    given = f"={detail['input']!r:.60}" if field is None or field.repr else ""
    return f"{name}{given}: {reason[:1].lower()}{reason[1:]}"
