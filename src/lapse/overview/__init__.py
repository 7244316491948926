"""Counts of changes, levels by status, and pages of sessions, for operators."""
