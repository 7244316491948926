"""Exporting what a store keeps of a user, and importing it again."""
