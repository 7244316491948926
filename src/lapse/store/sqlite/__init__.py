"""The SQLite store."""

from lapse.store.sqlite.database import SqliteStore

__all__ = ["SqliteStore"]
