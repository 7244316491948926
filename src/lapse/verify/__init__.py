"""`lapse verify`: plays scenarios against a real server, and prints which of them hold."""

from lapse.verify.playing import play

__all__ = ["play"]
