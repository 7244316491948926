"""The PostgreSQL store."""

from lapse.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
