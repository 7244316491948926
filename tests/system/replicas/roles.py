"""Roles of a database that may create no tables, and commands that run as such a role."""

import uuid
from contextlib import contextmanager

from postgres import run

GRANT = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {0};"
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {0}"
)


@contextmanager
def clerk_of(url):
    """Yield a database's URL for a role that may create no tables, and the role's name."""
    name = f"clerk_{uuid.uuid4().hex[:8]}"
    run(url, f"CREATE ROLE {name} LOGIN")
    try:
        yield url.replace("postgres@", f"{name}@"), name
    finally:
        run(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
