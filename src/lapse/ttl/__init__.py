"""The TTL of new sessions, fixed or learnt from the ages of first messages.

The rule that learns the TTL (an "order-statistic TTL") is pure: it takes counts and returns a
decision with its reason. The server and the simulator run the same code.
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
