"""Conversations elsewhere: used sessions live in another session service, the lobby in Lapse."""
