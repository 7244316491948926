"""The TTL of new sessions, and how it is learnt from first messages.

The rule that learns ("order-statistic TTL") is pure: from counts to a decision with its reason.
The server and the simulator run the same code.
"""

from lapse.ttl.deciding import decide, guard
from lapse.ttl.decision import Decision, Policy, Reason, Targets
from lapse.ttl.observed import Cohort, Outcome, Scope

__all__ = [
    "Cohort",
    "Decision",
    "Outcome",
    "Policy",
    "Reason",
    "Scope",
    "Targets",
    "decide",
    "guard",
]
