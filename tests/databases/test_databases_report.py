"""The report: the same from every kind of database, however it is read, and nothing is changed."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from google.adk.sessions.database_session_service import DatabaseSessionService
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import postgres
from lapse.core.errors import InvalidValueError, LapseError, StoreRefusedError
from lapse.core.messages import awaits_answer, is_message, is_message_of_user
from lapse.databases.readers import SqlalchemyReader, reader_of
from lapse.databases.report import Kind, Question, Report, Seen, group
from lapse.store.statements import read_statements
from serving import run
from stock_databases import COUNTS, OWNER, contents, shift_everything, words

TTL = timedelta(minutes=30)


async def test_a_report_counts_every_kind_of_database_and_leaves_it_unchanged(stock_database_url):
    before = contents(stock_database_url)
    found = (await reader_of(stock_database_url).report(TTL)).document()
    assert {name: found[name] for name in COUNTS} == COUNTS
    assert (found["sessions"], found["due"], found["usedAfterTtl"]) == (13, 0, 0)
    assert found["apps"]["zoo"]["empty"] == 1
    assert found["days"][datetime.now(UTC).date().isoformat()] == {"used": 3, "empty": 4}
    assert found["firstMessageWithinSeconds"]["0.9"] < 60
    assert found["databaseBytes"] > 10_000
    assert found["lobby"] == {}
    assert contents(stock_database_url) == before


@pytest.mark.parametrize("stock_database_url", ["sqlite", "postgres"], indirect=True)
async def test_the_slow_reader_on_sqlalchemy_finds_the_same(stock_database_url):
    found = (await reader_of(stock_database_url).report(TTL)).document()
    if stock_database_url.startswith("postgres"):
        rows = postgres.rows(
            stock_database_url,
            "SELECT s.id, s.app_name, s.create_time, s.state::text, e.timestamp, e.event_data::text"
            " FROM sessions s LEFT JOIN events e ON e.session_id = s.id ORDER BY s.id",
        )
        seen: dict[str, Seen] = {}
        for name, app, created, state, at, data in rows:
            one = seen.setdefault(name, Seen(app, name, created.replace(tzinfo=UTC), state, []))
            if data is not None:
                one.events.append((at.replace(tzinfo=UTC), json.loads(data), len(data)))
        moment = datetime.fromisoformat(found["at"])
        question = Question(moment, TTL)
        other = Report(question, "", None, group(question, seen.values()), {}).document()
    else:
        other = (await SqlalchemyReader(stock_database_url).report(TTL)).document()
    for name in (*COUNTS, "apps", "emptyByAge", "usedByAge", "days", "firstMessageDelays"):
        assert other[name] == found[name], name


async def test_a_report_has_ages_delays_and_what_a_sweep_would_take(stock_database_url):
    shift_everything(stock_database_url, back=timedelta(days=3), first_messages=timedelta(hours=1))
    found = await reader_of(stock_database_url).report(TTL, timedelta(days=2))
    assert found.due == 4
    assert found.older_than(Kind.EMPTY, timedelta(days=2), "zoo") == 1
    assert found.sessions_of("zoo") == sum(found.by_app()["zoo"].values())
    assert found.sessions_of(None) == found.count(*Kind)
    document = found.document()
    assert document["usedAfterTtl"] == 3
    assert document["firstMessageWithinSeconds"]["0.5"] == 7200
    assert [part["sessions"] for part in document["emptyByAge"]] == [0, 0, 0, 4, 0, 0, 0]
    assert document["emptyPerDay"] == round(4 / 7, 2)


values = st.sampled_from([None, "", "x", 0, False, True, [], ["x"], {}, {"a": 1}])
events = st.fixed_dictionaries(
    {},
    optional={
        "author": st.sampled_from(["user", "bot"]),
        "partial": st.sampled_from([None, True, False]),
        "content": st.fixed_dictionaries(
            {},
            optional={
                "parts": st.sampled_from(
                    [
                        *(None, [], [{"text": ""}], [{"text": "x"}]),
                        [{"text": "x"}, {"function_response": {"name": "f"}}],
                        *([{"function_response": {}}], [{"function_response": None}]),
                    ]
                )
            },
        ),
        "node_info": st.sampled_from([None, {}, {"path": ""}, {"path": None}, {"path": "bot@1"}]),
        "input_transcription": st.fixed_dictionaries(
            {}, optional={"text": st.sampled_from([None, "", "x"])}
        ),
        "output_transcription": st.sampled_from([None, {}, {"text": "x"}]),
        "output": st.sampled_from([None, "", 0, {"a": 1}]),
        "error_code": st.sampled_from([None, "", "X"]),
        "long_running_tool_ids": st.sampled_from([None, [], ["t"]]),
        "actions": st.fixed_dictionaries(
            {},
            optional={
                "compaction": st.sampled_from([None, {}, {"a": 1}]),
                "rewind_before_invocation_id": st.sampled_from([None, "", "e-1"]),
                "requested_tool_confirmations": st.sampled_from([None, {}, {"t": {}}]),
            },
        ),
    },
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(events, min_size=60, max_size=60))
def test_the_rule_for_a_message_is_the_same_in_python_and_in_sql(documents):
    statements = read_statements("postgres")
    found = postgres.rows(
        postgres.server().format("postgres"),
        f"SELECT {statements['is_message']}, {statements['is_message_of_user']},"
        f" {statements['awaits']}"
        " FROM unnest($1::jsonb[]) WITH ORDINALITY AS e (event_data, n) ORDER BY n",
        [json.dumps(document) for document in documents],
    )
    rules = (is_message, is_message_of_user, awaits_answer)
    assert found == [tuple(rule(document) for rule in rules) for document in documents]


@pytest.mark.parametrize("stock_database_url", ["sqlite"], indirect=True)
def test_a_report_is_printed_as_a_table_as_json_and_as_a_chart(stock_database_url, tmp_path):
    picture = tmp_path / "report.png"
    shown = run("report", stock_database_url, "--png", str(picture), COLUMNS="120")
    assert shown.returncode == 0, shown.stderr
    assert "4 of 13 sessions are empty (31%)" in shown.stdout
    assert "In 2 more only the agent spoke (15%)" in shown.stdout
    assert "Nothing was changed." in shown.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = json.loads(run("report", stock_database_url, "--json", "--ttl", "0.00002").stdout)
    assert (told["empty"], told["used"], told["due"]) == (4, 3, 4)


async def test_a_report_counts_the_lobby_of_the_same_database(tmp_path):
    url = f"sqlite:///{tmp_path}/both.db"
    async with DatabaseSessionService(url.replace("://", "+aiosqlite://", 1)) as stock:
        await stock.create_session(**OWNER, session_id="e1")
        await stock.append_event(await stock.create_session(**OWNER), words())
    assert run("adopt", url, "--yes").returncode == 0
    found = (await reader_of(url).report(TTL)).document()
    assert (found["empty"], found["used"], found["lobby"]) == (0, 1, {"waiting": 1})


def test_a_database_of_adk_schema_version_0_is_refused_with_advice(tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("CREATE TABLE events (id TEXT, actions BLOB)")
    for command in (["report"], ["adopt", "--yes"]):
        told = run(*command, f"sqlite:///{tmp_path}/old.db")
        assert told.returncode == 1
        assert "adk migrate session" in told.stderr


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///{}/none.db", "no such file"),
        ("sqlite:///{}/empty.db", "no sessions of ADK"),
        ("sqlite:///{}/text.db", "not an SQLite database"),
        ("postgresql://nobody@127.0.0.1:1/x", "PostgreSQL"),
        ("oracle://x", "must be sqlite"),
        ("chats.db", "must be sqlite"),
    ],
)
async def test_a_database_that_cannot_be_read_is_refused_with_a_reason(tmp_path, url, reason):
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "text.db").write_text("hello " * 100)
    with pytest.raises(LapseError, match=reason) as caught:
        await reader_of(url.format(tmp_path)).report(TTL)
    assert isinstance(caught.value, (StoreRefusedError, InvalidValueError, LapseError))
    assert not (tmp_path / "none.db").exists()
