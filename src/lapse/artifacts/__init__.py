"""Deleting the artifacts of sessions that ended before their first message."""
