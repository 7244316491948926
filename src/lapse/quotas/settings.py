"""The settings of quotas."""

from __future__ import annotations

from pydantic import Field

from lapse.auth.options import AuthMode
from lapse.auth.settings import AuthSettings
from lapse.core.setting_types import Limit
from lapse.quotas.rules import USUAL, Quotas


class QuotaSettings(AuthSettings):
    """The settings of quotas; their defaults depend on whether users are authenticated."""

    waiting_per_user: Limit = Field(default=None, validation_alias="LAPSE_WAITING_PER_USER")
    waiting_per_address: Limit = Field(default=None, validation_alias="LAPSE_WAITING_PER_ADDRESS")
    creates_per_user: Limit = Field(
        default=None, validation_alias="LAPSE_CREATES_PER_MINUTE_PER_USER"
    )
    creates_per_address: Limit = Field(
        default=None, validation_alias="LAPSE_CREATES_PER_MINUTE_PER_ADDRESS"
    )
    creates: Limit = Field(default=None, validation_alias="LAPSE_CREATES_PER_MINUTE")
    reuse_waiting: bool = Field(default=Quotas().reuse, validation_alias="LAPSE_REUSE_WAITING")

    @property
    def quotas(self) -> Quotas:
        """Return how many sessions may be created, and how many may wait.

        A limit that is not set is that of USUAL if users are authenticated. Otherwise there is no
        limit, because a client can make up its user id.
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
