"""Runs a command whose standard error is a terminal, as it is for whoever types it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

from serving import LAPSE, environment


def run_on_terminal(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command to its end; return its status, its output, and what the terminal showed."""
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [LAPSE, *arguments], env=environment(TERM="xterm"), cwd=folder, stderr=other,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(other)
    shown = b""
    while part := _read(terminal):
        shown += part
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    return process.returncode, out, shown.decode()


def see_on_terminal(folder: Path, pattern: str, *arguments: str) -> str:
    """Run a command until its terminal has shown a pattern; return what that saw."""
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [LAPSE, *arguments], env=environment(TERM="xterm"), cwd=folder, stderr=other,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(other)
    shown = ""
    try:
        while not re.search(pattern, shown) and (part := _read(terminal)):
            shown += re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", part.decode(errors="replace"))
    finally:
        process.send_signal(signal.SIGINT)
        while _read(terminal):
            pass
        process.wait(60)
        os.close(terminal)
    return shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's end of a terminal whose other side is closed
        return b""
