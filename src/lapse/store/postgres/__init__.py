"""The PostgreSQL store."""

from lapse.store.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
