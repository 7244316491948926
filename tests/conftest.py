"""What every folder of tests shares: fixtures, and Hypothesis's settings.

Modules that several folders import stand in `support`, which pytest puts on the path.
"""

from hypothesis import settings

pytest_plugins = ["stores", "services", "servers"]

settings.register_profile("lapse", derandomize=True, deadline=None, database=None)
settings.load_profile("lapse")
