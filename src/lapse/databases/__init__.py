"""Existing ADK databases: report what they hold, adopt what nobody spoke to, undo, and copy."""
