"""Builds the release, and checks it as whoever installs it meets it. It uploads nothing.

The wheel is built from the sdist, so the sdist is whole. Every file of `src/lapse` is in the wheel
and no other; the wheel is installed into an environment of its own, where `lapse` serves once.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
IN_SDIST = {
    *("src", "clients", "README.md", "CHANGELOG.md", "LICENSE"),
    *("pyproject.toml", "hatch_build.py", "PKG-INFO", ".gitignore"),
}
LISTENS = re.compile(r"on (http://127\.0\.0\.1:\d+)")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command to its end, show what it says, and return it; a failure ends all."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}")
    return done.stdout


def built(out: Path) -> tuple[Path, Path]:
    """Return a new sdist, and the wheel that was built from it."""
    for old in (*out.glob("lapse-*.tar.gz"), *out.glob("lapse-*.whl")):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", str(out))
    (sdist,), (wheel,) = out.glob("lapse-*.tar.gz"), out.glob("lapse-*.whl")
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """End with a message if a file is missing, or if one is there that should not be."""
    source = ROOT / "src"
    wanted = {
        str(file.relative_to(source))
        for file in (source / "lapse").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    info = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    if wrong := wanted ^ (names - info):
        raise SystemExit(f"{wheel.name} and src/lapse differ by {sorted(wrong)}")
    if not any(name.endswith("/licenses/LICENSE") for name in info):
        raise SystemExit(f"{wheel.name} has no LICENSE")
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    if tops != IN_SDIST:
        raise SystemExit(f"{sdist.name} differs by {sorted(tops ^ IN_SDIST)}")
    kinds = sorted({Path(name).suffix or Path(name).name for name in wanted})
    print(f"{len(wanted)} files in the wheel: {', '.join(kinds)}")


def try_it(wheel: Path, folder: Path) -> None:
    """Install the wheel into an environment of its own, and serve once from an empty folder."""
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / "bin"
    run(programs / "pip", "install", "--quiet", wheel, cwd=folder)
    told = run(programs / "lapse", "--version", cwd=folder)
    if told != f"lapse {wheel.name.split('-')[1]}\n":
        raise SystemExit(f"`lapse --version` of {wheel.name} says {told!r}")
    log = folder / "log"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAPSE_", "SESSION_CLEANUP_", "PYTHON"))
    }
    with log.open("wb") as lines:
        server = subprocess.Popen(
            [programs / "lapse", "serve", "--port", "0"], cwd=folder, env=kept, stderr=lines
        )
    try:
        message(listening(server, log))
        server.send_signal(signal.SIGTERM)
        if server.wait(20) not in {0, -signal.SIGTERM}:
            raise SystemExit(f"the server ended with {server.returncode}:\n{log.read_text()}")
    finally:
        server.kill()
        server.wait()


def listening(server: subprocess.Popen[bytes], log: Path) -> str:
    """Return the URL of a server once it listens."""
    while not (found := LISTENS.search(log.read_text("utf-8"))):
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise SystemExit(f"the server does not start:\n{log.read_text()}")
    return found[1]


def message(url: str) -> None:
    """Create a session and say something in it; its answer comes, and the session is used."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        client.get("/readyz").raise_for_status()
        path = "/apps/concierge/users/ada/sessions"
        created = client.post(path, json={"sessionId": "tea"})
        created.raise_for_status()
        text = {"role": "user", "parts": [{"text": "A table for 4, please"}]}
        said = {"appName": "concierge", "userId": "ada", "sessionId": "tea", "newMessage": text}
        client.post("/run", json=said).raise_for_status()
        status = client.get(f"{path}/tea/lifecycle").json()["status"]
        if status != "used":
            raise SystemExit(f"a session with a message is {status}")


def main() -> None:
    """Build, check, try, and say where the release is."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--out", type=Path, default=ROOT / "dist", help="by default dist")
    out = asked.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    sdist, wheel = built(out)
    run(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
    run(sys.executable, "-m", "check_wheel_contents", str(wheel))
    check_contents(sdist, wheel)
    with tempfile.TemporaryDirectory(prefix="lapse-release-") as folder:
        try_it(wheel, Path(folder))
    print(f"Built and tried, not uploaded: {sdist} and {wheel}")


if __name__ == "__main__":
    main()
