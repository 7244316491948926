"""Erasing a user: everything that is kept of them, in all apps and places."""
