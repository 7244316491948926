"""What every folder of tests shares: this folder on the path, and Hypothesis's settings."""

from hypothesis import settings

settings.register_profile("lapse", derandomize=True, deadline=None, database=None)
settings.load_profile("lapse")
