"""Telling an operator's own server of what happens to sessions, at least once."""
