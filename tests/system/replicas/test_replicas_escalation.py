"""The functions that act as the tables' owner run nobody else's code, and hold up no message."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import asyncpg
import pytest
from roles import clerk_of

from backends import DUE, T0, create
from lapse.core.errors import StoreUnavailableError
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import prepare, rows, run
from serving import run as lapse

OWNER = "postgres"


def noting(name, arguments, returns, value):
    """Return the command that makes a function which notes who runs it, and is cheap to call."""
    body = f"BEGIN INSERT INTO public.loot VALUES (current_user); RETURN {value}; END"
    return (
        f"CREATE FUNCTION {name}({arguments}) RETURNS {returns} LANGUAGE plpgsql COST 0.0001 "
        f"AS $${body}$$"
    )


AN_OPERATOR = (
    noting("{schema}.same", "oid, regclass", "boolean", "false"),
    "CREATE OPERATOR {schema}.= (FUNCTION = {schema}.same, LEFTARG = oid, RIGHTARG = regclass)",
)
A_VIEW = (
    noting("{schema}.seen", "", "boolean", "false"),
    """\
CREATE TEMP VIEW pg_trigger AS
SELECT '{schema}.lapse_brakes'::regclass::oid AS tgrelid, 'lapse_webhook_brake'::name AS tgname
WHERE {schema}.seen()
""",
    "GRANT ALL ON pg_trigger TO PUBLIC",
)
A_FUNCTION = (
    f"CREATE SCHEMA {OWNER}",
    noting(f"{OWNER}.lapse_owe_session_webhook", "", "trigger", "NULL"),
    f"GRANT USAGE ON SCHEMA {OWNER} TO PUBLIC",
)


async def expire_one(url):
    """Return how many events the expiry of a session makes, with a server that has a webhook."""
    store = store_with_parts(url)
    try:
        await store.at(T0).announce_webhook()
        await create(store)
        await store.at(DUE).expire_due(10)
        return len(await store.at(DUE).take_webhooks(10))
    finally:
        await store.close()


async def attack(url, schema, steps):
    """Do this on one connection, and call the function, which may fail."""
    connection = await asyncpg.connect(url)
    try:
        for step in steps:
            await connection.execute(step)
        with suppress(asyncpg.PostgresError):
            await connection.execute(f"SELECT {schema}.lapse_webhooks_on()")
    finally:
        await connection.close()


@pytest.mark.parametrize("schema", ["public", "of the tables"])
@pytest.mark.parametrize(
    "steps",
    [AN_OPERATOR, A_VIEW, A_FUNCTION],
    ids=["operator", "view", "function"],
)
async def test_a_role_runs_no_code_as_the_tables_owner(empty_database_url, steps, schema):
    """It owns nothing, may create objects in every schema, and may call the functions.

    Seen to fail with the search_path of the migration (`FROM CURRENT`), and for the operator with
    `pg_catalog, SCHEMA, pg_temp`, too.
    """
    quoted, url = f'"{schema}"', empty_database_url
    if schema != "public":
        path = f'"$user", {quoted}, public'
        run(
            url,
            f"CREATE SCHEMA {quoted}",
            f"ALTER DATABASE {name_of(url)} SET search_path = {path}",
        )
    prepare(url)
    with clerk_of(url) as (mine, role):
        assert lapse("migrate", "--store", url, "--role", role).returncode == 0
        run(
            url,
            f"GRANT CREATE ON DATABASE {name_of(url)} TO {role}",
            f"GRANT CREATE ON SCHEMA public, {quoted} TO {role}",
            "CREATE TABLE public.loot (who name)",
            "GRANT ALL ON public.loot TO PUBLIC",
        )
        await attack(mine, quoted, [step.replace("{schema}", quoted) for step in steps])
        assert rows(url, "SELECT who FROM public.loot") == []
        # An operator in a schema of its path changes what any session of the server does.
        run(url, f"DROP OPERATOR IF EXISTS {quoted}.= (oid, regclass)")
        assert await expire_one(mine) == 1
        assert rows(url, "SELECT who FROM public.loot") == []


def name_of(url):
    """Return the name of a URL's database."""
    return url.partition("?")[0].rpartition("/")[2]


def test_nobody_may_call_the_functions_who_was_not_named(empty_database_url):
    """Seen to fail without the REVOKE of a trigger's function."""
    prepare(empty_database_url)
    with clerk_of(empty_database_url) as (_, role):
        found = rows(
            empty_database_url,
            "SELECT proname, proconfig, has_function_privilege($1, oid, 'EXECUTE') FROM pg_proc "
            "WHERE proname ~ '^lapse_.*webhook'",
            role,
        )
    assert len(found) == 4
    for name, config, may in found:
        assert "search_path=pg_catalog, pg_temp" in config, name
        assert not may, name


@pytest.mark.parametrize("way", ["begin", "end"])
async def test_a_servers_start_holds_up_no_message(empty_database_url, way):
    """While the triggers can be neither made nor dropped, sessions are created.

    Seen to fail without a lock_timeout: all wait for that transaction.
    """
    prepare(empty_database_url)
    patient = ConnectionOptions(statement_timeout=timedelta(minutes=1), patience=timedelta(0))
    server, other = (store_with_parts(empty_database_url, options=patient) for _ in range(2))
    if way == "end":
        await server.at(T0).announce_webhook()
    holder = await asyncpg.connect(empty_database_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE lapse_lobby IN ROW EXCLUSIVE MODE")
            later = server.at(T0 + timedelta(days=4))
            async with asyncio.timeout(30):
                with pytest.raises(StoreUnavailableError, match="lock timeout"):
                    await (server.announce_webhook if way == "begin" else later.maintain_webhooks)()
                await create(other)
        await server.announce_webhook()
    finally:
        await holder.close()
        await server.close()
        await other.close()
