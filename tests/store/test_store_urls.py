"""What is shown of a store's URL: never a password, always where the store is."""

from __future__ import annotations

import pytest

from lapse.core.errors import StoreUnavailableError
from lapse.store.postgres.connections import not_connected, unavailable
from lapse.store.urls import place_of, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////var/a@b.db", "sqlite:////var/a@b.db"),
        ("postgresql://lapse:s:e@c/r?t@host:5/db?sslmode=x", "postgresql://lapse@host:5/db"),
        ("postgresql:///db?user=u&password=p@ss", "postgresql://@ss"),
        ("postgresql://host/db?password=x", "postgresql://host/db"),
        ("postgresql://u@/db?host=/run/pg&password=x", "postgresql://u@/db?host=/run/pg"),
    ],
)
def test_the_url_of_a_store_is_shown_without_secrets(url, shown):
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://lapse:secret@db.test:5432/lapse", "postgresql://db.test:5432/lapse"),
        ("postgresql://u:p@/db?host=/run/pg&sslmode=x", "postgresql:///db?host=/run/pg"),
        ("postgresql:///db", "postgresql:///db at the usual socket, for its URL has no host"),
    ],
)
@pytest.mark.parametrize(
    "error", [OSError(2, "No such file or directory"), TimeoutError(), RuntimeError("u:p")]
)
def test_an_error_of_a_connection_names_the_host_and_no_secret(monkeypatch, url, shown, error):
    """Seen to fail with the place left out: `PostgreSQL: [Errno 2] No such file or directory`."""
    monkeypatch.delenv("PGHOST", raising=False)
    said = str(not_connected(error, place_of(url)))
    assert said.startswith(f"PostgreSQL ({shown}): ")
    assert "secret" not in said
    assert "u:p" not in said


def test_an_error_names_the_host_that_the_driver_takes_from_the_environment(monkeypatch):
    monkeypatch.setenv("PGHOST", "db.test")
    error = unavailable("silent", place_of("postgresql:///db"))
    assert isinstance(error, StoreUnavailableError)
    assert str(error) == "PostgreSQL (postgresql:///db at db.test): silent"


def test_a_relative_file_is_named_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    assert place_of("sqlite+aiosqlite:////var/x.db?mode=rw") == "sqlite+aiosqlite:////var/x.db"
    assert place_of("sqlite:///:memory:") == "sqlite:///:memory:"
