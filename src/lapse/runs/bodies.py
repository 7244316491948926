"""The bodies of requests and answers about runs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from lapse.core.clock import iso, iso_or_none
from lapse.runs.store import RunRecord, RunStatus


class IfBusy(StrEnum):
    """What happens to a request while another run is in flight: a 409, or waiting in the queue."""

    REJECT = "reject"
    QUEUE = "queue"


class RunBody(BaseModel):
    """A message to a session, in exactly one of `message`, `query` and ADK's `newMessage`."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    message: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)
    new_message: dict[str, Any] | None = None
    state_delta: dict[str, Any] | None = None
    streaming: bool = True
    if_busy: IfBusy = IfBusy.REJECT

    @model_validator(mode="after")
    def _one_message(self) -> RunBody:
        given = [self.message, self.query, self.new_message]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give exactly one of message, query and newMessage")
        return self

    @property
    def content(self) -> dict[str, Any]:
        """Return the message as ADK's `Content`."""
        if self.new_message is not None:
            return {"role": "user"} | self.new_message
        return {"role": "user", "parts": [{"text": self.message or self.query}]}


class RunStarted(BaseModel):
    """The answer to a message as soon as it is stored; `invocation_id` is the one of its events."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    success: bool
    session_id: str
    run_id: str
    status: RunStatus
    stream: str
    invocation_id: str | None


class RunBodyOut(BaseModel):
    """A run's record in an answer. Moments are ISO 8601 in UTC."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    session_id: str
    run_id: str
    status: RunStatus
    started_at: str
    ended_at: str | None
    error: Mapping[str, Any] | None

    @classmethod
    def of(cls, record: RunRecord) -> RunBodyOut:
        """Return the body for a record."""
        return cls(
            session_id=record.key.session_id,
            run_id=record.run_id,
            status=record.status,
            started_at=iso(record.started_at),
            ended_at=iso_or_none(record.ended_at),
            error=record.error,
        )
