"""`make release`: what it builds is whole, and what it checks can fail."""

import email
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from serving import environment

ROOT = Path(__file__).parents[3]
RELEASE = ROOT / ".ci" / "release.py"


def loaded():
    spec = importlib.util.spec_from_file_location("release", RELEASE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_release_is_built_checked_installed_and_served(tmp_path):
    """Seen to fail with `exclude = ["*.sql"]` in the wheel's table, and with tests in it."""
    done = subprocess.run(
        [sys.executable, str(RELEASE), "--out", str(tmp_path)],
        env=environment(PROJECT_REPOSITORY="https://code.example/lapse/"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Built and tried, not uploaded" in done.stdout
    sdist, wheel = sorted(tmp_path.iterdir(), key=lambda file: file.suffix)
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        (told,) = [name for name in names if name.endswith("METADATA")]
        metadata = email.message_from_bytes(opened.read(told))
    assert {"lapse/py.typed", "lapse/store/postgres/sessions.sql"} <= set(names)
    assert "Repository, https://code.example/lapse" in metadata.get_all("Project-URL")
    assert metadata["License-Expression"] == "Apache-2.0"
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if "/tests" in name]


def files(folder, *, wheel, sdist):
    """Write a wheel and an sdist of empty files with these names."""
    with zipfile.ZipFile(folder / "lapse.whl", "w") as made:
        for name in wheel:
            made.writestr(name, "")
    with tarfile.open(folder / "lapse.tar.gz", "w:gz") as made:
        for name in sdist:
            made.addfile(tarfile.TarInfo(f"lapse-1/{name}"), io.BytesIO())
    return folder / "lapse.tar.gz", folder / "lapse.whl"


SOURCE = [
    str(Path(folder, name).relative_to(ROOT / "src"))
    for folder, _, names in os.walk(ROOT / "src" / "lapse")
    for name in names
    if "__pycache__" not in folder
]
LICENSE = "lapse-1.dist-info/licenses/LICENSE"


@pytest.mark.parametrize(
    ("left_out", "added", "said"),
    [
        ("lapse/py.typed", None, "py.typed"),
        ("lapse/store/sqlite/sessions.sql", None, "sessions.sql"),
        ("lapse/dashboard/static/operators.css", None, "operators.css"),
        (None, "tests/conftest.py", "tests/conftest.py"),
        (LICENSE, None, "no LICENSE"),
    ],
)
def test_a_wheel_that_lacks_a_file_or_has_one_too_many_is_refused(tmp_path, left_out, added, said):
    release = loaded()
    wheel = [*{*SOURCE, LICENSE, added} - {left_out, None}]
    with pytest.raises(SystemExit, match=said):
        release.check_contents(*files(tmp_path, wheel=wheel, sdist=release.IN_SDIST))


def test_an_sdist_with_tests_is_refused_and_the_whole_release_is_not(tmp_path):
    release = loaded()
    wheel = [*SOURCE, LICENSE]
    release.check_contents(*files(tmp_path, wheel=wheel, sdist=release.IN_SDIST))
    with pytest.raises(SystemExit, match="tests"):
        release.check_contents(*files(tmp_path, wheel=wheel, sdist={*release.IN_SDIST, "tests/a"}))
