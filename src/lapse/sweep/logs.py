"""The log lines of sweeps and of the brake."""

from __future__ import annotations

import logging
from typing import Any

from lapse.core.clock import iso
from lapse.sweep.rules import Brake, BrakeReason
from lapse.sweep.sweeper import SweepReport
from lapse.telemetry.logs import seconds_of

_log = logging.getLogger("lapse.sweeps")


def log_sweep(report: SweepReport) -> None:
    """Log a sweep that changed something, and a brake that is newly set or released."""
    braking = report.braking
    if braking.is_new and braking.brake is not None:
        _log.warning("brake set: nothing is purged", extra=_brake_facts(braking.brake))
    elif braking.let_go is not None:
        _log.warning("brake released", extra={"reason": str(braking.let_go.reason)})
    if report.did_something:
        _log.info(
            "swept",
            extra={
                **report.counts(),
                "latest_s": seconds_of(report.latest),
                "took_s": seconds_of(report.duration),
            },
        )


def _brake_facts(brake: Brake) -> dict[str, Any]:
    facts: dict[str, Any] = {"reason": str(brake.reason), "until": iso(brake.until)}
    match brake.reason:
        case BrakeReason.SHARE:
            facts["sessions"] = brake.sessions
        case BrakeReason.CLOCK:
            facts["jump_s"] = seconds_of(brake.jump)
    return facts | {"go_on": "lapse sweep --confirm"}
