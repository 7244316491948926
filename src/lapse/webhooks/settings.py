"""The settings of the webhook."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from lapse.core.setting_types import SliceSettings
from lapse.webhooks.rules import WebhookOptions, read_secret

_MOST_SECRETS: Final = 2


class WebhookSettings(SliceSettings):
    """Where events are sent, and with which secret they are signed."""

    webhook_url: SecretStr | None = Field(
        default=None, repr=False, validation_alias="LAPSE_WEBHOOK_URL"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, repr=False, validation_alias="LAPSE_WEBHOOK_SECRET"
    )

    @property
    def webhook(self) -> WebhookOptions | None:
        """Return where events are sent; None: nowhere. Of settings without `problems` only."""
        if self.webhook_url is None:
            return None
        secrets = tuple(filter(None, map(read_secret, self._secrets)))
        return WebhookOptions(self.webhook_url.get_secret_value(), secrets)

    @property
    def _secrets(self) -> list[str]:
        given = "" if self.webhook_secret is None else self.webhook_secret.get_secret_value()
        return [part.strip() for part in given.split(",") if part.strip()]

    def problems(self) -> list[str]:
        """Return what is wrong with these settings together; no secret and no URL is in it."""
        problems = super().problems()
        if self.webhook_url is None:
            return problems
        if not _is_url(self.webhook_url.get_secret_value()):
            problems.append("LAPSE_WEBHOOK_URL: must be a URL that begins with https:// or http://")
        secrets = self._secrets
        if not 1 <= len(secrets) <= _MOST_SECRETS or None in map(read_secret, secrets):
            problems.append(
                "LAPSE_WEBHOOK_SECRET: LAPSE_WEBHOOK_URL needs one, or an old and a new one with a "
                "comma between them: whsec_ and 24 to 64 bytes as base64; "
                '`echo "whsec_$(openssl rand -base64 32)"` makes one'
            )
        return problems


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"https", "http"} and bool(parts.hostname) and not parts.fragment
