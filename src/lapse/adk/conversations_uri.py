"""The session service that a URI names, from ADK's registry, and what it does not promise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from lapse.adk.private.versions import SINCE, needs_newer
from lapse.core.errors import InvalidValueError

if TYPE_CHECKING:
    from google.adk.sessions.base_session_service import BaseSessionService

_FIELD: Final = "conversations URI"
_EXTRAS: Final = {
    "redis": "google-adk[redis]",
    "pymongo": "google-adk[mongodb]",
    "google.cloud": "google-cloud-firestore",
    "sqlalchemy": "google-adk[db]",
    "agentplatform": "google-adk[gcp]",
}
"""What to install for a module of another package that a service needs."""

_log = logging.getLogger(__name__)


def service_from_uri(uri: str, agents_dir: Path = Path()) -> BaseSessionService:
    """Return the service of ADK's that a URI names.

    It takes what ADK's `--session_service_uri` takes, with the schemes that `services.py` and
    `services.yaml` in the folder of agents register, and besides `redis://`, `rediss://`,
    `mongodb://HOST/DATABASE`, `mongodb+srv://` and `firestore://DATABASE`.

    Raises:
        InvalidValueError: there is no such service, or it needs a package that is not installed.
    """
    from google.adk.cli.service_registry import get_service_registry, load_services_module
    from google.adk.sessions.database_session_service import DatabaseSessionService

    load_services_module(str(agents_dir))
    scheme = urlsplit(uri).scheme
    if not scheme or scheme == "lapse":
        raise InvalidValueError(_FIELD, "must name another session service than Lapse's, as a URI")
    try:
        service = get_service_registry().create_session_service(uri, agents_dir=str(agents_dir))
        if service is None:
            made = _OF_INTEGRATIONS.get(scheme)
            service = DatabaseSessionService(db_url=uri) if made is None else made(uri)
    except ImportError as error:
        missing = error.name or str(error)
        if missing in SINCE:
            raise InvalidValueError(_FIELD, f"{scheme}:// {needs_newer(missing)}") from error
        package = next((_EXTRAS[name] for name in _EXTRAS if name in missing), None)
        way = "" if package is None else f": pip install '{package}'"
        reason = f"{scheme}:// needs a package that is not installed ({missing:.80}){way}"
        raise InvalidValueError(_FIELD, reason) from error
    except Exception as error:
        # The services quote the URI, and it may hold a password.
        kind = type(error).__name__
        reason = f"{scheme}:// must name a service that ADK can make; ADK raised {kind}"
        raise InvalidValueError(_FIELD, reason) from error
    return service


def warn_of_contradictions(service: BaseSessionService) -> None:
    """Log what a service does that contradicts Lapse's promises, or may double a message."""
    kinds = {kind.__name__ for kind in type(service).__mro__}
    for name, contradiction in _CONTRADICTIONS.items():
        if name in kinds:
            _log.warning("conversations in %s: %s", name, contradiction)
    ttl = getattr(getattr(service, "config", None), "ttl_seconds", 0)
    if isinstance(ttl, int) and ttl > 0:
        _log.warning(
            "conversations in %s: it deletes a session %g days after its last event, although "
            "Lapse promises to keep used sessions; redis:// URIs take ttl_seconds=0 for none",
            type(service).__name__,
            ttl / 86_400,
        )


_CONTRADICTIONS: Final[Mapping[str, str]] = {
    "InMemorySessionService": "it forgets every used session when the process ends, and each "
    "process has its own",
    "RedisSessionService": "a message may be stored twice if a call outlives its time-out",
    "VertexAiSessionService": "a message may be stored twice if a call outlives its time-out",
}


def _redis(uri: str) -> BaseSessionService:
    """Make ADK's Redis service; `ttl_seconds` and `key_prefix` in the query are its own options."""
    from google.adk.integrations.redis import RedisSessionService, RedisSessionServiceConfig

    parts = urlsplit(uri)
    asked = parse_qs(parts.query)
    options: dict[str, Any] = {"uri": urlunsplit(parts._replace(query=""))}
    for name in ("ttl_seconds", "key_prefix"):
        if name in asked:
            options[name] = asked.pop(name)[-1]
    kept = "&".join(f"{name}={value}" for name, values in asked.items() for value in values)
    options["uri"] = urlunsplit(parts._replace(query=kept))
    return RedisSessionService(RedisSessionServiceConfig.model_validate(options))


def _mongodb(uri: str) -> BaseSessionService:
    from google.adk.integrations.mongodb import MongoDbSessionService

    database = urlsplit(uri).path.strip("/")
    return MongoDbSessionService(database_name=database or "adk", connection_string=uri)


def _firestore(uri: str) -> BaseSessionService:
    from google.adk.integrations.firestore import FirestoreSessionService
    from google.cloud import firestore  # type: ignore[import-untyped]

    parts = urlsplit(uri)
    named = {"database": parts.netloc} if parts.netloc else {}
    root = parts.path.strip("/")
    collection = {"root_collection": root} if root else {}
    return FirestoreSessionService(client=firestore.AsyncClient(**named), **collection)


_OF_INTEGRATIONS: Final[Mapping[str, Callable[[str], BaseSessionService]]] = {
    "redis": _redis,
    "rediss": _redis,
    "mongodb": _mongodb,
    "mongodb+srv": _mongodb,
    "firestore": _firestore,
}
