"""Lapse in what others make: in an application of your own, and in ADK's own servers."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from lapse.app import Lapse
from lapse.core.arguments import check
from lapse.core.errors import InvalidValueError
from lapse.core.messages import UsedByRule
from lapse.settings import Settings, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lapse.adk.run_sse import Runner
    from lapse.adk.service import LapseSessionService
    from lapse.artifacts.sweeper import ArtifactSweeper
    from lapse.auth import Authentication
    from lapse.runs.runs import Runs


def mount(
    app: FastAPI,
    service: LapseSessionService,
    settings: Settings | None = None,
    *,
    runners: Iterable[Runner] = (),
    apps: Container[str] | None = None,
    artifacts: ArtifactSweeper | None = None,
    authentication: Authentication | None = None,
    default_app: str | None = None,
    used_by: UsedByRule | str | None = None,
) -> Runs:
    """Add Lapse to an application, around a service that you have made; see `Lapse.mount`.

    The service is closed when the application ends. The TTL and the quotas that it was made with,
    and the rules and the options of its store, stay. `used_by`, else the service, says whose
    message makes a session used. All else is as the settings say, by default those of the
    environment; wrong and misspelt ones are refused.
    """
    from lapse.adk.service import LapseSessionService

    check(service=(service, LapseSessionService), settings=(settings, Settings | None))
    settings = settings or load_settings()
    if used_by is not None:
        service.used_by = UsedByRule.parse(used_by)
    if "store_url" not in settings.model_fields_set:
        # The operators' pages show the URL, and the default is not where the sessions are.
        settings = settings.model_copy(update={"store_url": ""})
    whole = Lapse._around(service, settings, notes_artifacts=artifacts is not None)  # noqa: SLF001
    return whole.mount(
        app,
        runners=runners,
        apps=apps,
        artifacts=artifacts,
        authentication=authentication,
        default_app=default_app,
    )


def session_service(uri: str = "", **_options: Any) -> LapseSessionService:
    """Make the session service that a URI of ADK's `--session_service_uri` names.

    `lapse:sqlite:///chats.db` is the scheme `lapse:` and a store's URL; without a URL the settings
    name the store. The service sweeps, learns and adopts by itself, from its first write until it
    is closed. It ignores what else ADK passes to a factory, such as `agents_dir`.

    Raises:
        InvalidValueError: no store has such a URL, or the settings ask for authentication or limit
            who sets app state, which ADK's own server does not do.
        SettingsError: the settings are wrong.
    """
    check(uri=(uri, str))
    lapse = Lapse(uri.removeprefix("lapse:").removeprefix("//"))
    if (name := lapse.settings.for_lapse_alone) is not None:
        raise InvalidValueError(
            name,
            "is set, but ADK's own server lets everybody do everything; use `lapse serve`, or do "
            "not set it here",
        )
    return lapse._service(beside=lapse._keeping())  # noqa: SLF001
