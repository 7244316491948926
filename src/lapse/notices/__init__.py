"""Notices to browsers: a session is about to expire, has expired, came back."""
