"""The setting of the route by which users erase what is kept of them."""

from __future__ import annotations

from pydantic import Field

from lapse.core.setting_types import SliceSettings


class ErasureSettings(SliceSettings):
    """Whether users may erase what is kept of them, over HTTP."""

    self_erasure: bool = Field(default=False, validation_alias="LAPSE_SELF_ERASURE")
