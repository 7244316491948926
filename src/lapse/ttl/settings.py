"""The settings of the TTL and of the rule that learns it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pydantic import Field

from lapse.core.minutes import spelt
from lapse.core.setting_types import Hours, Minutes, Share, doubt_of
from lapse.store.settings import StoreSettings
from lapse.ttl.decision import Policy, Targets

_DEFAULTS: Final = Targets()


class TtlSettings(StoreSettings):
    """The settings of the TTL; the store's horizon limits the floor and the cap."""

    ttl: Minutes = Field(default=_DEFAULTS.default, validation_alias="SESSION_CLEANUP_TTL_MINUTES")
    ttl_policy: Policy = Field(default=Policy.FIXED, validation_alias="LAPSE_TTL_POLICY")
    ttl_soft_target: Share = Field(default=_DEFAULTS.soft, validation_alias="LAPSE_TTL_SOFT_TARGET")
    ttl_hard_target: Share = Field(default=_DEFAULTS.hard, validation_alias="LAPSE_TTL_HARD_TARGET")
    ttl_confidence: Share = Field(
        default=doubt_of(_DEFAULTS.doubt), validation_alias="LAPSE_TTL_CONFIDENCE"
    )
    ttl_floor: Minutes = Field(default=_DEFAULTS.floor, validation_alias="LAPSE_TTL_FLOOR_MINUTES")
    ttl_cap: Hours | None = Field(default=None, validation_alias="LAPSE_TTL_CAP_HOURS")
    ttl_design_effect: float = Field(
        default=_DEFAULTS.design_effect,
        ge=1,
        le=1000,
        validation_alias="LAPSE_TTL_DESIGN_EFFECT",
    )

    @property
    def _cap(self) -> timedelta:
        return self.horizon if self.ttl_cap is None else self.ttl_cap

    @property
    def targets(self) -> Targets:
        """Return the targets of the TTL policy.

        A fixed policy does not use the floor and the cap: they are lowered to the horizon instead
        of being refused.
        """
        cap, floor = self._cap, self.ttl_floor
        if self.ttl_policy is Policy.FIXED:
            cap = min(cap, self.horizon)
            floor = min(floor, cap)
        return Targets(
            soft=self.ttl_soft_target,
            hard=self.ttl_hard_target,
            doubt=doubt_of(self.ttl_confidence),
            floor=floor,
            cap=cap,
            horizon=self.horizon,
            design_effect=self.ttl_design_effect,
            default=self.ttl,
        )

    def problems(self) -> list[str]:
        """Return the problems of values that do not fit together, a sentence each."""
        return [*super().problems(), *self._ttl_problems()]

    def _ttl_problems(self) -> list[str]:
        if self.ttl_policy is Policy.FIXED:
            return []
        name = f"LAPSE_TTL_POLICY={str(self.ttl_policy)!r}"
        if not self.horizon:
            why = "late messages are never seen, and the TTL would only ever get shorter"
            return [
                f"{name}: needs LAPSE_RESTORE_HOURS above 0; where nothing is restorable, {why}"
            ]
        if self.ttl_floor <= self._cap <= self.horizon:
            return []
        order = (
            f"LAPSE_TTL_FLOOR_MINUTES ({spelt(self.ttl_floor)}), LAPSE_TTL_CAP_HOURS "
            f"({spelt(self._cap)}) and LAPSE_RESTORE_HOURS ({spelt(self.horizon)})"
        )
        return [f"{name}: needs {order} in this order, the last one the longest"]
