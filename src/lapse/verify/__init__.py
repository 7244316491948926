"""`lapse verify`: plays the life of sessions against a real server and says what holds."""

from lapse.verify.playing import play

__all__ = ["play"]
