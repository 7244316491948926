"""Fills a database with a real ADK of schema version 0, and dumps it as the fixtures beside this.

python -m venv old
    old/bin/pip install google-adk==1.20.0 aiosqlite asyncpg greenlet psycopg2-binary
TZ=UTC old/bin/python make_with_old_adk.py sqlite:///new.db adk-1.20-sqlite.json
TZ=UTC old/bin/python make_with_old_adk.py postgresql://… adk-1.20-postgres.json
TZ=Europe/Berlin old/bin/python make_with_old_adk.py sqlite:///berlin.db adk-1.20-berlin.json
"""

import asyncio
import base64
import json
import os
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from uuid import UUID

import sqlalchemy
from fastapi.openapi.models import APIKey, APIKeyIn, OAuth2, OAuthFlowAuthorizationCode, OAuthFlows
from google.adk.auth.auth_credential import (
    AuthCredential,
    AuthCredentialTypes,
    HttpAuth,
    HttpCredentials,
    OAuth2Auth,
)
from google.adk.auth.auth_schemes import OpenIdConnectWithConfig
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.adk.version import __version__
from google.genai import types
from google.genai.types import Content, FunctionCall, FunctionResponse, Part

BEGAN = 1_730_000_000.123456  # 2024-10-27 03:33:20 UTC, soon after Berlin's clocks went back


def said(role, *parts):
    return Content(role=role, parts=list(parts))


def auth_configs():
    flow = OAuthFlowAuthorizationCode(
        authorizationUrl="https://a.example/auth",
        tokenUrl="https://a.example/token",
        scopes={"read": "reads", "schreiben": "ändert"},
    )
    yield AuthConfig(
        auth_scheme=OAuth2(flows=OAuthFlows(authorizationCode=flow)),
        raw_auth_credential=AuthCredential(
            auth_type=AuthCredentialTypes.OAUTH2,
            oauth2=OAuth2Auth(client_id="c", client_secret="not-a-secret", state="st"),
        ),
    )
    yield AuthConfig(
        auth_scheme=OpenIdConnectWithConfig(
            authorization_endpoint="https://o.example/a",
            token_endpoint="https://o.example/t",
            scopes=["openid"],
        ),
        exchanged_auth_credential=AuthCredential(
            auth_type=AuthCredentialTypes.HTTP,
            http=HttpAuth(scheme="bearer", credentials=HttpCredentials(token="none")),
        ),
    )
    yield AuthConfig(
        auth_scheme=APIKey(**{"in": APIKeyIn.header, "name": "X-Key"}),
        raw_auth_credential=AuthCredential(
            auth_type=AuthCredentialTypes.API_KEY, api_key="key", resource_ref=None
        ),
    )


def actions():
    """Yield actions with every field that this ADK has."""
    yield EventActions(
        state_delta={
            "n": 1, "pi": 3.5, "none": None, "yes": True, "ünïcode": "Grüße, 世界 🌍\u2028",
            "nested": {"list": [1, [2, {"deep": [None, ""]}]], "empty": {}},
            "app:motto": "für alle", "user:name": "Ada", "temp:scratch": [1, 2],
        },
        artifact_delta={"bild.png": 0, "user:notes.txt": 3},
    )  # fmt: skip
    yield EventActions(transfer_to_agent="other", escalate=True, skip_summarization=True)
    yield EventActions(requested_auth_configs=dict(zip("abc", auth_configs(), strict=True)))
    yield EventActions(
        requested_tool_confirmations={
            "call-1": ToolConfirmation(hint="Sicher?", payload={"amount": 5, "to": ["x", None]}),
            "call-2": ToolConfirmation(confirmed=True),
        }
    )
    yield EventActions(
        compaction=EventCompaction(
            start_timestamp=BEGAN,
            end_timestamp=BEGAN + 5,
            compacted_content=said(
                "model",
                Part(text="kurz"),
                Part(inline_data=types.Blob(mime_type="image/png", data=bytes(range(256)))),
                Part(thought=True, text="hm", thought_signature=b"\xff\x00"),
            ),
        )
    )
    yield EventActions(
        end_of_agent=True,
        agent_state={
            "when": datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC),
            "naive": datetime(2024, 2, 29),  # noqa: DTZ001 - as somebody may have it
            "day": date(2024, 2, 29),
            "span": timedelta(days=1, microseconds=7),
            "amount": Decimal("10.50"),
            "id": UUID(int=5),
            "path": PurePosixPath("/a/b"),
            "tags": {"one"},
            "pair": (1, "two"),
            "big": 2**70,
            "role": AuthCredentialTypes.HTTP,
            "part": Part(text="in state"),
        },
    )
    yield EventActions(rewind_before_invocation_id="inv-0")


def events(size):
    """Yield events with every field that this ADK stores, one of them with a text of a size."""
    yield Event(author="user", content=said("user", Part(text="Hallo 👋")))
    call = FunctionCall(id="call-1", name="pay", args={"amount": 5, "to": None})
    yield Event(
        author="bot",
        branch="root.bot",
        content=said("model", Part(function_call=call)),
        long_running_tool_ids={"call-1", "call-9"},
        usage_metadata=types.GenerateContentResponseUsageMetadata(
            prompt_token_count=7, total_token_count=9
        ),
    )
    answer = FunctionResponse(id="call-1", name="pay", response={"ok": [True, 1.25]})
    yield Event(author="bot", content=said("user", Part(function_response=answer)))
    yield Event(
        author="bot",
        content=said("model", Part(text="x" * size)),
        grounding_metadata=types.GroundingMetadata(web_search_queries=["a", "b"]),
        citation_metadata=types.CitationMetadata(
            citations=[types.Citation(title="t", start_index=1, end_index=2)]
        ),
        custom_metadata={"a": {"b": [1, None]}},
        turn_complete=True,
    )
    yield Event(author="bot", error_code="MALFORMED", error_message="nö", interrupted=True)
    yield Event(
        author="user",
        input_transcription=types.Transcription(text="gesprochen", finished=True),
        output_transcription=types.Transcription(text="answered", finished=False),
    )
    for one in actions():
        yield Event(author="bot", actions=one)
    blob = types.Blob(mime_type="audio/pcm", data=b"\x00\xff" * 200)
    yield Event(author="user", content=said("user", Part(inline_data=blob)))


async def fill(url):
    """Make five sessions: one empty, one with state alone, three with all kinds of events."""
    service = DatabaseSessionService(url)
    await service.create_session(app_name="shop", user_id="ada", session_id="empty")
    await service.create_session(
        app_name="shop",
        user_id="ada",
        session_id="with-state",
        state={"user:seen": ["é"], "app:version": 2, "own": {"k": None}, "temp:t": 1},
    )
    number = 0
    sessions = (
        ("shop", "ada", "talk-" + "1" * 30),
        ("shop", "bob/'\"%", "täg-🌍"),
        ("zoo", "ada", "one"),
    )
    for app, user, session in sessions if os.environ["TZ"] == "UTC" else sessions[-1:]:
        made = await service.create_session(app_name=app, user_id=user, session_id=session)
        for event in events(20_000 if app == "shop" and number == 0 else 10):
            number += 1
            event.id = f"event-{number:04}-{app}"
            event.invocation_id = f"inv-{number // 3}"
            event.timestamp = BEGAN + number * 0.5
            await service.append_event(made, event)
            # This ADK takes a session for stale after each append: its clock is another one.
            made = await service.get_session(app_name=app, user_id=user, session_id=session)


def dump(url):
    """Return all tables: how they were made, and their rows."""
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            "adk": __version__,
            "zone": os.environ.get("TZ"),
            "tables": [
                {
                    "name": table.name,
                    "ddl": str(sqlalchemy.schema.CreateTable(table).compile(engine)).strip(),
                    "indexes": [
                        str(sqlalchemy.schema.CreateIndex(index).compile(engine))
                        for index in table.indexes
                    ],
                    "columns": list(table.columns.keys()),
                    "rows": [
                        [encoded(value) for value in row]
                        for row in connection.execute(
                            sqlalchemy.text(f"SELECT * FROM {table.name} ORDER BY 1, 2")
                        )
                    ],
                }
                for table in metadata.sorted_tables
            ],
        }


def encoded(value):
    match value:
        case bytes() | memoryview():
            return {"base64": base64.b64encode(bytes(value)).decode()}
        case datetime():
            return value.isoformat(" ", "microseconds")
        case dict() | list():
            return json.dumps(value)
        case _:
            return value


def main():
    url, file = sys.argv[1:]
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    scheme, rest = url.split("://", 1)
    needs_async = not hasattr(sys.modules[DatabaseSessionService.__module__], "create_engine")
    asyncio.run(fill(f"{driver[scheme] if needs_async else scheme}://{rest}"))
    Path(file).write_text(json.dumps(dump(url), indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main()
