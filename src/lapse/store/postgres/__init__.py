"""The PostgreSQL store."""

from lapse.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
