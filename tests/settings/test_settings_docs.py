"""`docs/settings.md` and the code have the same settings, with the same defaults, by slice."""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path

import pytest

from lapse import Settings
from lapse.artifacts.settings import USUAL_MIB
from lapse.core.setting_types import SliceSettings
from lapse.quotas.rules import USUAL
from lapse.settings import setting_names

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
ROW = re.compile(r"^\| `([A-Z0-9_]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
SECTION = re.compile(
    r"^## [^\n]+: `([a-z]+)/settings\.py`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
ROWS = {name: (default, text) for name, default, text in ROW.findall(PAGE)}
FIELDS = {str(field.validation_alias): (own, field) for own, field in Settings.model_fields.items()}
WITH_AUTHENTICATION = {
    "LAPSE_WAITING_PER_USER": USUAL.waiting_per_user,
    "LAPSE_WAITING_PER_ADDRESS": USUAL.waiting_per_address,
    "LAPSE_CREATES_PER_MINUTE_PER_USER": USUAL.creates_per_user,
    "LAPSE_CREATES_PER_MINUTE_PER_ADDRESS": USUAL.creates_per_address,
    "LAPSE_CREATES_PER_MINUTE": USUAL.creates,
    "LAPSE_ARTIFACTS_MIB_PER_USER": USUAL_MIB,
}


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    """Start from no settings at all, in an empty directory."""
    for name in list(os.environ):
        if name.upper().startswith(("LAPSE_", "SESSION_CLEANUP_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def slices() -> dict[str, set[str]]:
    """Return the settings that each folder declares."""
    return {
        kind.__module__.split(".")[1]: {
            str(Settings.model_fields[own].validation_alias) for own in kind.__annotations__
        }
        for kind in Settings.__mro__
        if issubclass(kind, SliceSettings) and kind not in {SliceSettings, Settings}
    }


def test_the_page_lists_every_setting_once_and_no_other():
    assert sorted(name for name, _, _ in ROW.findall(PAGE)) == sorted(setting_names())


def test_each_setting_is_in_the_section_of_its_slice():
    page = {
        folder: {name for name, _, _ in ROW.findall(body)} for folder, body in SECTION.findall(PAGE)
    }
    assert page == slices()


@pytest.mark.parametrize("name", setting_names())
def test_the_default_on_the_page_equals_that_in_the_code(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """Seen to fail with LAPSE_RUN_QUEUE=5 on the page, and with 4 s for LAPSE_BODY_SECONDS."""
    told = ROWS[name][0]
    own, field = FIELDS[name]
    if told == "not set":
        assert not field.default
    elif name in WITH_AUTHENTICATION:
        assert told == f"`{WITH_AUTHENTICATION[name]}` with authentication, else `0`"
        assert field.default is None
    else:
        monkeypatch.setenv(name, told.strip("`"))
        read = getattr(Settings(), own)
        assert read == field.default
        assert not isinstance(read, Enum) or told == f"`{read}`"


@pytest.mark.parametrize("name", setting_names())
def test_each_setting_is_described_by_one_whole_sentence(name: str):
    text = ROWS[name][1]
    assert text[0] == "`" or text[0].isupper()
    assert text.endswith(".")
    assert ". " not in text
