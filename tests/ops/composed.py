"""`ops/compose` as it stands: services, what they mount, and the secrets they read."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml
from deployment import OPS

FOLDER = OPS / "compose"
FILE = FOLDER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LAPSES = {name: one for name, one in SERVICES.items() if one["image"] == "lapse"}


def make_secrets(folder: Path) -> Path:
    """Run a copy of `secrets.sh` in a folder, and return where it has put them."""
    copy = folder / "secrets.sh"
    copy.write_bytes((FOLDER / "secrets.sh").read_bytes())
    # A umask that would keep the files from the containers' users.
    subprocess.run(["sh", "-c", f"umask 077; sh {copy}"], check=True, cwd="/")
    return folder / "secrets"


def variables(file: Path) -> dict[str, str]:
    """Return what an env file says."""
    return dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())
