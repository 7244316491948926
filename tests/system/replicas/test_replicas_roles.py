"""The role of a server has the privileges that it needs, and is told which ones it lacks."""

from datetime import timedelta

import pytest
from roles import clerk_of

from backends import DUE, T0, create, key, message
from lapse.core.errors import StoreUnavailableError
from lapse.core.lifecycle import Cause
from lapse.erasure.erasing import Erasure
from lapse.store.sessions import Sessions
from lived_sessions import STATUSES, lived
from parts import store_with_parts
from postgres import prepare, rows, run
from serving import AGENTS, serving
from serving import run as lapse
from users_data import fill

REVOKED = [
    ("INSERT", "events"),
    ("UPDATE", "lapse_lobby"),
    ("INSERT", "lapse_audit"),
    ("SELECT", "lapse_schema"),
]


@pytest.fixture
def clerk(empty_database_url):
    """Yield the URL of a role with what `lapse migrate --role` gives, and its name."""
    with clerk_of(empty_database_url) as (url, name):
        done = lapse("migrate", "--store", empty_database_url, "--role", name)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"the role {name} may work on the tables" in done.stdout
        yield url, name


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what ADK calls itself
def test_with_the_privileges_that_migrate_gives_all_of_a_life_goes_well(clerk, tmp_path):
    """Runs, uploads, sweeps, adoptions, brakes, audits: as for the owner of the tables.

    Seen to fail without DELETE on all tables.
    """
    url, name = clerk
    with lived(url, tmp_path) as life:
        assert {one: life.record(one)["status"] for one in STATUSES} == STATUSES
    given = {
        privilege
        for (privilege,) in rows(
            url,
            "SELECT privilege_type FROM information_schema.role_table_grants "
            f"WHERE grantee = '{name}' AND table_name = 'lapse_audit'",
        )
    }
    assert given == {"SELECT", "INSERT"}


def test_what_migrate_prints_gives_the_same_as_what_it_does(empty_database_url):
    """Seen to fail with a print that leaves the role out."""
    with clerk_of(empty_database_url) as (url, name):
        printed = lapse("migrate", "--print", "--store", empty_database_url, "--role", name)
        assert (printed.returncode, printed.stderr) == (0, "")
        run(empty_database_url, printed.stdout)
        assert lapse("migrate", "--store", url).stdout == "nothing to do\n"


@pytest.mark.parametrize(("privilege", "table"), REVOKED)
def test_a_role_that_lacks_a_privilege_is_told_which(clerk, empty_database_url, privilege, table):
    """Seen to fail without the look at privileges: the first statement that needs one fails."""
    url, name = clerk
    run(empty_database_url, f"REVOKE {privilege} ON {table} FROM {name}")
    told = (
        f"the role {name} lacks {privilege} on {table}; run `lapse migrate --store URL --role "
        f"{name}`"
    )
    checked = lapse("check", "--store", url)
    assert checked.returncode == 3
    assert told in checked.stdout
    refused = lapse("serve", "--store", url, "--port", "0")
    assert refused.returncode == 1
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_privilege_that_is_taken_away_is_named_in_the_log_and_not_to_the_client(
    clerk, empty_database_url, tmp_path
):
    """Seen to fail with the driver's error passed on: 500."""
    url, name = clerk
    with serving(tmp_path, str(AGENTS), "--store", url) as server:
        assert server.client.post(server.path()).status_code == 200
        run(empty_database_url, f"REVOKE INSERT ON lapse_lobby FROM {name}")
        answer = server.client.post(server.path())
        assert answer.status_code == 503
        assert "lapse_lobby" not in answer.text
        assert name not in answer.text
        run(empty_database_url, f"GRANT INSERT ON lapse_lobby TO {name}")
        assert server.client.post(server.path()).status_code == 200
    assert "permission denied for table lapse_lobby" in server.log
    assert "lapse migrate --store URL --role ROLE" in server.log


async def test_a_store_names_the_missing_privilege_and_what_was_asked_for_is_not_done(
    clerk, empty_database_url
):
    url, name = clerk
    store = store_with_parts(url)
    try:
        revision = await create(store, now=None)
        run(empty_database_url, f"REVOKE INSERT ON events FROM {name}")
        with pytest.raises(StoreUnavailableError, match="permission denied for table events"):
            await store.append(key(), message(), revision)
        run(empty_database_url, f"GRANT INSERT ON events TO {name}")
        assert (await store.append(key(), message(), revision)).changes
    finally:
        await store.close()


def test_a_role_that_does_not_exist_and_a_store_without_roles_are_refused(
    empty_database_url, tmp_path
):
    prepare(empty_database_url)
    absent = lapse("migrate", "--store", empty_database_url, "--role", "nobody there")
    assert absent.returncode == 1
    assert 'role "nobody there" does not exist' in absent.stderr
    file = lapse("migrate", "--store", f"sqlite:///{tmp_path / 'x.db'}", "--role", "ann")
    assert file.returncode == 1
    assert "SQLite has no roles" in file.stderr


async def test_a_role_that_owns_no_table_has_events_written_and_ended(clerk):
    """Seen to fail with functions that make the triggers as who calls them."""
    store = store_with_parts(clerk[0])
    await store.at(T0).announce_webhook()
    await create(store)
    await store.at(DUE).expire_due(10)
    (event,) = await store.at(DUE).take_webhooks(10)
    await store.settle_webhooks([event.number])
    await store.at(T0 + timedelta(days=4)).maintain_webhooks()
    await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)
    assert await store.at(T0 + timedelta(days=4)).take_webhooks(10) == []
    await store.close()


async def test_a_role_that_owns_no_table_erases_all_but_the_audit_and_says_so(clerk):
    """Seen to fail without the question whether it may redact."""
    store = store_with_parts(clerk[0])
    keys = await fill(store, "ann", "mark")
    erasure = Erasure(store, "ann", end=Sessions(store).delete)
    receipt = await erasure.run("op")
    assert receipt.is_whole
    assert receipt.erased["sessions"] == len(keys)
    assert receipt.remains[0].startswith("the audit log: acts keep digests")
    found = await erasure.plan()
    assert {name for name, number in found.items() if number} == {"acts"}
    await store.close()
