"""What holds for every page that people read: links lead somewhere, imports are public."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import lapse
import lapse.testing

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "start", ROOT / "examples")
    for page in folder.glob("*.md")
)
EXAMPLES = sorted(file.relative_to(ROOT) for file in (ROOT / "examples").rglob("*.py"))
INSIDE = {"architecture", "CHANGELOG", "browser"}
"""Pages about the inside, and about another language."""

FIXTURES = {"lapse", "clock", "lapse_server"}
"""What the pytest plug-in gives to tests by these names."""

DEMO = "lapse.demo.agents.concierge.agent"
"""What stands for the reader's own agent."""


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_has_a_target(page: Path):
    """Seen to fail with a link to `docs/setting.md`, and with one to `operations.md#brake`."""
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = ROOT / page.parent / name if name else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=str)
def test_every_import_in_the_docs_is_of_a_public_name(page: Path):
    """Seen to fail with `from lapse.core.keys import SessionKey` in an example."""
    text = (ROOT / page).read_text("utf-8")
    for module, given in re.findall(r"^\s*from (lapse[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
        if module == DEMO:
            continue
        assert module in {"lapse", "lapse.auth", "lapse.testing"}, module
        names = [name.strip() for name in given.strip().split(",")]
        home = importlib.import_module(module)
        assert set(names) <= set(home.__all__), module
    assert not re.search(r"^\s*import lapse\.", text, re.MULTILINE)


def defined() -> set[str]:
    """Return the public classes and functions of all modules."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name
        for file in (ROOT / "src" / "lapse").rglob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, kinds) and not node.name.startswith("_")
    }


@pytest.mark.parametrize("page", [one for one in PAGES if one.stem not in INSIDE], ids=str)
def test_what_a_page_calls_or_names_of_lapse_is_public(page: Path):
    """Seen to fail before `Principal` and `bounded` were public."""
    text = (ROOT / page).read_text("utf-8")
    code = " ".join(re.findall(r"```python\n.*?```|`[^`\n]+`", text, re.DOTALL))
    called = set(re.findall(r"(?<![\w.])([A-Za-z]\w+)\(", code))
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+|Principal)`", text))
    own = set(re.findall(r"\bdef (\w+)\(", code))
    imports = re.findall(r"^from (?!lapse)[\w.]+ import ([\w, ]+)$", text, re.MULTILINE)
    others = {name for names in imports for name in names.split(", ")}
    public = {*lapse.__all__, *lapse.testing.__all__, *FIXTURES}
    assert ((called - own - others) | named) & defined() <= public
