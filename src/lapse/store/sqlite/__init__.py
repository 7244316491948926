"""The SQLite store."""

from lapse.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
