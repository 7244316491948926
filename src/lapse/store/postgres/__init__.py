"""The PostgreSQL store."""

from lapse.store.postgres.database import PostgresStore

__all__ = ["PostgresStore"]
