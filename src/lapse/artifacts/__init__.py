"""Artifacts: deleting those of ended sessions, and a quota for those that requests save."""
