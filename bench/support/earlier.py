"""The source of an earlier Lapse, by which one caller's times are compared."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from bench.support.children import BENCH

REVISION: Final = "f7dd2ce"
"""Before creates, messages and hot routes were made faster."""


def source_at(revision: str, scratch: Path) -> Path | None:
    """Return a folder with the modules of a revision; None if this checkout does not have it."""
    asked = ["git", "-C", str(BENCH.parent), "archive", revision, "src"]
    answer = subprocess.run(asked, capture_output=True, check=False)
    if answer.returncode:
        print(f"  {revision} is not in this checkout: nothing is compared with it", flush=True)
        return None
    folder = scratch / "earlier"
    with tarfile.open(fileobj=io.BytesIO(answer.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"
