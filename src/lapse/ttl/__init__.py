"""The TTL of new sessions, and how it is learnt from first messages.

The rule that learns ("order-statistic TTL") is pure: from counts to a decision with its reason.
The server and the simulator run the same code.
"""

from lapse.ttl.ages import EDGES, Histogram, bucket_of, edge_at_most
from lapse.ttl.deciding import decide, guard
from lapse.ttl.decision import Decision, Policy, Reason, Targets
from lapse.ttl.observed import Cohort, Kind, Scope

__all__ = [
    "EDGES",
    "Cohort",
    "Decision",
    "Histogram",
    "Kind",
    "Policy",
    "Reason",
    "Scope",
    "Targets",
    "bucket_of",
    "decide",
    "edge_at_most",
    "guard",
]
