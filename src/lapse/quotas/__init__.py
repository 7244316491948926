"""Quotas: how many sessions may be created, and how many may wait."""
