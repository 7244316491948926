"""A policy file: what it says, its faults by line, and what asks for a new confirmation."""

from datetime import timedelta

import pytest

from lapse.core.errors import SettingsError
from lapse.retention.policy import PolicyError, parse_policy, read_policy
from lapse.retention.rules import Limits, Policy
from lapse.settings import load_settings

DAY = timedelta(days=1)
WHOLE = """\
# the law asks for it
[default]
idle = "90d"
archive = "365d"

[apps."shop.eu"]
idle = "4s"
age = "0.5h"
awaiting = "30m"
per_user = 20

[apps.bank]
idle = "never"
"""


def faults(text):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    return list(caught.value.problems)


def test_an_app_has_its_own_limits_and_takes_the_others_from_the_default():
    policy = parse_policy(WHOLE)
    assert policy.of("other") == Limits(idle=90 * DAY, archive=365 * DAY)
    assert policy.of("bank") == Limits(archive=365 * DAY)
    assert policy.of("shop.eu") == Limits(
        idle=timedelta(seconds=4),
        age=timedelta(minutes=30),
        archive=365 * DAY,
        awaiting=timedelta(minutes=30),
        per_user=20,
    )


def test_a_policy_without_limits_takes_nothing():
    assert parse_policy("") == Policy()
    assert not Policy().of("app").archives


def test_all_faults_are_told_at_once_each_with_its_line():
    """Seen to fail with a parser that stops at the first fault of the syntax."""
    text = """\
[default]
idle = "90 days"
archiv = "1d"
age = 90
per_user = 0

[apps.shop]
idle = = "1d"
awaiting = "1w"
[apps."bank"]
per_user = true
age = "0s"
[other]
x = 1
"""
    found = faults(text)
    assert [int(one.split(":")[0].removeprefix("line ")) for one in found] == [
        2, 3, 4, 5, 8, 9, 11, 12, 13,
    ]  # fmt: skip
    assert "did you mean archive?" in found[1]
    assert '"4s"' in found[0]


@pytest.mark.parametrize(
    "text", ["default = 1", "apps = 1", "apps.shop = 1", '[apps."a\\u0000"]\nidle = "1d"', "[", "x"]
)
def test_what_is_no_policy_is_refused_with_a_line(text):
    assert all(one.startswith("line 1: ") for one in faults(text))


def test_layout_and_comments_ask_for_no_new_confirmation_and_any_change_does():
    one = parse_policy(WHOLE)
    assert parse_policy(WHOLE.replace('"90d"', "'2160h' # 90 days")).digest == one.digest
    assert parse_policy("\n".join(reversed(WHOLE.split("\n\n")))).digest == one.digest
    for old, new in (("4s", "5s"), ("per_user = 20", "per_user = 21"), ("bank", "bank2")):
        assert parse_policy(WHOLE.replace(old, new)).digest != one.digest


def test_the_settings_tell_the_faults_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "policy.toml"
    monkeypatch.setenv("LAPSE_RETENTION_FILE", str(path))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings()
    path.write_text('[default]\nidle = "x"\nage = "y"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [one.partition("toml: ")[2][:7] for one in caught.value.problems] == [
        "line 2:",
        "line 3:",
    ]
    path.write_text(WHOLE)
    assert load_settings().retention_file == path
    assert read_policy(path) == parse_policy(WHOLE)


def test_with_conversations_elsewhere_there_is_no_retention(tmp_path, monkeypatch):
    path = tmp_path / "policy.toml"
    path.write_text(WHOLE)
    monkeypatch.setenv("LAPSE_RETENTION_FILE", str(path))
    monkeypatch.setenv("LAPSE_CONVERSATIONS_URI", "memory://")
    with pytest.raises(SettingsError, match="not with this service"):
        load_settings()
