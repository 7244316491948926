"""Ask every route of a real server's OpenAPI for what it was not made for: `make fuzz`.

It asks an open server and one that knows its callers, the latter as an operator, as a user and as
nobody, and ends with status 1 where any of them answered 5xx.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

import canaries

from serving import Server, copied_agents, environment, serving

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
NOT_OURS = "/agent-identity/finalize"
"""ADK's, which answers 500 in words where an extra of ADK's is not installed."""


def fuzz(
    server: Server,
    *headers: str,
    examples: int,
    paths: str = "^(?!.*(/lifecycle/events|/tests/run)$)",
    phases: str = "fuzzing",
    seed: int = 1,
) -> subprocess.CompletedProcess[str]:
    """Return what Schemathesis says of a server: its status is 1 where there is any 5xx.

    `paths` leaves out all others, and by default what takes long: streams have no end of their
    own, and ADK runs pytest.
    """
    options = (
        f"--checks not_a_server_error --phases {phases} --max-examples {examples} --seed {seed} "
        "--request-timeout 20 --no-shrink --suppress-health-check all --warnings off --no-color"
    )
    schema = server.client.get("/openapi.json", headers=dict(h.split(": ", 1) for h in headers))
    described = server.folder / "openapi.json"
    described.write_text(schema.text, encoding="utf-8")
    with_headers = [part for header in headers for part in ("--header", header)]
    return subprocess.run(
        [
            *(SCHEMATHESIS, "run", str(described), "--url", server.url),
            *("--include-path-regex", paths, "--exclude-path", NOT_OURS),
            *options.split(),
            *with_headers,
        ],
        cwd=server.folder,
        env=environment(HOME=str(server.folder)),
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def serving_agents(folder: Path, **settings: str) -> Iterator[Server]:
    """Serve copies of the agents: ADK keeps artifacts beside them, and writes into HOME."""
    agents = str(copied_agents(folder / "agents"))
    with serving(folder, agents, "--web", HOME=str(folder), **settings) as server:
        yield server


def main() -> int:
    """Fuzz each kind of server as each kind of caller."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failed = 0
    for settings in ({}, canaries.SETTINGS):
        callers = {"nobody": []}
        if settings:
            callers |= {
                role: [f"Authorization: {canaries.bearer(role)['Authorization']}"]
                for role in ("operator", "user")
            }
        for caller, headers in callers.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                serving_agents(Path(folder), **settings) as server,
            ):
                done = fuzz(
                    server,
                    *headers,
                    examples=given.examples,
                    paths="",
                    phases="coverage,fuzzing",
                    seed=given.seed,
                )
                kind = "guarded" if settings else "open"
                sys.stdout.write(f"# {kind} server, asked by {caller}\n{done.stdout}\n")
                failed |= done.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
