"""Each 413 names the setting that raises its bound, or says that none does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lapse
from lapse.limits.rules import BODY_SETTING, FIXED, KIB, STATE_SETTING, Bound, Bounds, too_large
from lapse.settings import Settings

SESSIONS = "/apps/a/users/u/sessions"
SOURCE = Path(lapse.__file__).parent


@pytest.mark.parametrize(
    ("method", "path", "setting"),
    [
        ("POST", "/run", BODY_SETTING),
        ("POST", f"{SESSIONS}/s/run", BODY_SETTING),
        ("POST", f"{SESSIONS}/s/artifacts", BODY_SETTING),
        ("POST", SESSIONS, STATE_SETTING),
        ("PATCH", f"{SESSIONS}/s", STATE_SETTING),
        ("PATCH", f"{SESSIONS}/s/lifecycle", FIXED),
        ("POST", "/lapse/login", FIXED),
    ],
)
def test_the_bound_of_a_body_has_the_setting_that_raises_it(method, path, setting):
    assert Bounds().largest(method, path).setting == setting


def test_where_bodies_have_less_room_than_state_their_setting_is_named():
    small = Bounds(body=100 * KIB)
    assert small.largest("POST", SESSIONS) == Bound(100 * KIB, BODY_SETTING)


def test_the_settings_that_are_named_exist():
    known = {field.validation_alias for field in Settings.model_fields.values()}
    assert {BODY_SETTING, STATE_SETTING, "LAPSE_ARTIFACTS_MIB_PER_USER"} <= known


def test_every_413_is_made_where_the_setting_is_named():
    """Seen to fail with one `Fault(413, …)` left in `documents.py`.

    What else answers 413 says it in a sentence of its own, which is listed here.
    """
    assert too_large("x: is too large").detail.endswith(f"({FIXED})")
    found = {
        (str(file.relative_to(SOURCE)), line.strip())
        for file in SOURCE.rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if re.search(r"\w\(413\b", line)
    }
    assert found == {
        ("limits/rules.py", 'return Fault(413, f"{reason} ({setting})")'),
        ("web/errors.py", "TooManyArtifactsError: _answer(413),"),
        ("web/errors.py", "HeldEventsFullError: _answer(413),"),
        (
            "dashboard/forms.py",
            'raise HTTPException(413, f"the form must be at most {most} bytes (a fixed limit)")',
        ),
    }
