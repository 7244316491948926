"""How Lapse comes into an environment: the Makefile's, or the reader's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving import environment

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ON_PATH = 'export PATH="$PWD/.venv/bin:$PATH"'

PYTHON = """\
#!/bin/sh
# Stands for python3: what it makes as .venv/bin/python does nothing, but says what it was told.
mkdir -p .venv/bin && touch .venv/pyvenv.cfg
if [ -e no-ensurepip ]; then ln -sf /bin/false .venv/bin/python; exit 1; fi
printf '#!/bin/sh\\necho "$*"\\n' > .venv/bin/python && chmod +x .venv/bin/python
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that runs `make install` in a fresh checkout with a false python3."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def make():
        return subprocess.run(
            ["make", "install", "PYTHON=./python3"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return make


def installs(done):
    assert done.returncode == 0, done.stderr
    return "pip install --quiet --editable ." in done.stdout


def test_a_half_made_environment_is_made_again(make, tmp_path):
    """Seen to fail with the Makefile as it was: `.venv/bin/pip: No such file or directory`."""
    (tmp_path / "no-ensurepip").touch()  # Debian without python3-venv
    assert make().returncode != 0
    assert not (tmp_path / ".venv").exists()
    (tmp_path / "no-ensurepip").unlink()
    assert installs(make())
    assert not installs(make()), "it is up to date"
    (tmp_path / ".venv" / "bin" / "python").unlink()  # its Python is gone
    assert installs(make())
    shutil.rmtree(tmp_path / ".venv" / "bin")  # it was interrupted
    (tmp_path / ".venv" / ".installed").unlink()
    assert installs(make())
    (tmp_path / ".venv" / ".installed").unlink()  # interrupted while it installed
    assert installs(make())
    assert not installs(make())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_that_prints_bare_commands_says_what_puts_them_on_the_path(page):
    """Seen to fail with each of the four pages as it was."""
    text = page.read_text("utf-8")
    blocks = "".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    if re.search(r"^(\$ )?lapse ", blocks, re.MULTILINE) or page.name == "README.md":
        assert ON_PATH in text


def test_the_line_that_puts_lapse_on_the_path_does(tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{ON_PATH}; lapse --version"],
        env=environment() | {"PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("lapse "), done.stderr


def test_the_readme_names_every_extra_and_ways_to_install_into_another_environment():
    """Seen to fail with the README as it was."""
    readme = (ROOT / "README.md").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\[", project, re.DOTALL)[1]
    told = re.search(r"The extras are (.*?)\.$", readme, re.MULTILINE)[1]
    assert set(re.findall(r"`(\w+)`", told)) == set(re.findall(r"^(\w+) =", extras, re.MULTILINE))
    for way in ("pip install '/path/to/lapse[", "@ git+https://", "pip wheel --no-deps"):
        assert way in readme
