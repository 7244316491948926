"""Lapse's routes, for one's own FastAPI application and for `lapse serve`."""

from lapse.web.application import MountOptions, mount

__all__ = ["MountOptions", "mount"]
