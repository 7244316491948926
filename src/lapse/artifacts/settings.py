"""The settings of artifacts."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from lapse.artifacts.uploads import MIB
from lapse.auth.options import AuthMode
from lapse.auth.settings import AuthSettings
from lapse.core.setting_types import Limit

USUAL_MIB: Final = 256
"""MiB of artifacts that each user may upload if users are authenticated."""


class ArtifactSettings(AuthSettings):
    """Whether artifacts of ended sessions are deleted, and how much a user may upload."""

    artifacts: bool = Field(default=True, validation_alias="LAPSE_DELETE_ARTIFACTS")
    artifacts_per_user: Limit = Field(default=None, validation_alias="LAPSE_ARTIFACTS_MIB_PER_USER")

    @property
    def artifact_bytes_per_user(self) -> int | None:
        """Return how many bytes the artifacts may have that one user uploads; None: any number.

        If it is not set, it is USUAL_MIB if users are authenticated. Otherwise there is no limit,
        because a client can make up its user id.
        """
        if self.artifacts_per_user is None:
            return None if self.auth is AuthMode.NONE else USUAL_MIB * MIB
        return self.artifacts_per_user * MIB or None
