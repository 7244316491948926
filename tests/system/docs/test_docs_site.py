"""The documentation site is made of the pages without a fault, and asks no other site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lapse
import lapse.auth
import lapse.testing
from lapse.cli.main import app
from serving import environment

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
LOADED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']*""")
IN_STYLES = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, made as `make docs` makes it: a broken link or anchor ends this."""
    made = tmp_path_factory.mktemp("site")
    recipe = re.search(r"^docs:.*\n\t(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    command = recipe[1].replace("$(BIN)/python", sys.executable)
    command = command.replace("build/doctrees", f"{made}/doctrees").replace(
        "build/site", f"{made}/s"
    )
    done = subprocess.run(
        command.split(), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made / "s"


def test_the_site_has_every_page_and_loads_nothing_of_another_site(site):
    """Seen to fail with a font of another site in site.css, and with a link to `#brake`."""
    pages = [*site.rglob("*.html")]
    for source in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "start").glob("*.md")):
        assert site / source.relative_to(ROOT).with_suffix(".html") in pages
    assert (site / "index.html").exists()
    for page in pages:
        assert not LOADED.search(page.read_text("utf-8")), page
    for styles in site.rglob("*.css"):
        assert not IN_STYLES.search(styles.read_text("utf-8")), styles


def test_the_reference_has_every_public_name_and_every_command(site):
    python = (site / "docs" / "site" / "generated" / "python.html").read_text("utf-8")
    for module in (lapse, lapse.auth, lapse.testing):
        for name in module.__all__:
            assert f'<code class="docutils literal notranslate"><span class="pre">{name}<' in python
    commands = (site / "docs" / "site" / "generated" / "commands.html").read_text("utf-8")
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"lapse {name}" in re.sub("<[^>]+>", "", commands), name
