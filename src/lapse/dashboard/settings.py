"""The settings of the operators' pages."""

from __future__ import annotations

from pydantic import Field

from lapse.core.setting_types import Port
from lapse.dashboard.options import AdminToken, OperatorOptions
from lapse.retention.settings import RetentionSettings
from lapse.store.settings import StoreSettings
from lapse.store.urls import without_password
from lapse.webhooks.settings import WebhookSettings


class DashboardSettings(StoreSettings, WebhookSettings, RetentionSettings):
    """The settings of the operators' pages.

    They also show the store's URL, the webhook and the retention policy.
    """

    admin_token: AdminToken | None = Field(
        default=None, repr=False, validation_alias="LAPSE_ADMIN_TOKEN"
    )
    admin_port: Port = Field(default=None, validation_alias="LAPSE_ADMIN_PORT")
    admin_host: str = Field(default="127.0.0.1", validation_alias="LAPSE_ADMIN_HOST")

    @property
    def operators(self) -> OperatorOptions:
        """Return the options of the operators' pages."""
        return OperatorOptions(
            token=self.admin_token,
            port=self.admin_port,
            store=without_password(self.store_url),
            has_webhook=self.webhook_url is not None,
            retention_file=self.retention_file,
        )
