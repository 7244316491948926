"""The SQLite store."""

from lapse.store.sqlite.database import SqliteDatabase

__all__ = ["SqliteDatabase"]
