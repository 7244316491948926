"""The SQLite store."""

from lapse.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
