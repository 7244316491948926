"""Artifacts of sessions that ended while nobody had spoken to them."""
