"""`lapse retention`: shows what a policy would take, and confirms it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.cli.command import (
    JsonOption,
    StoreOption,
    acting_as,
    check_conversations,
    fail,
    narrow_table,
    open_settings,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.progress import waiting

if TYPE_CHECKING:
    from lapse.retention.rules import Policy
    from lapse.retention.store import Confirmation, Falling
    from lapse.settings import Settings

retention_commands = typer.Typer(
    help="The retention policy: what it would take, and its confirmation.", no_args_is_help=True
)

_BAR: Final = 40


@retention_commands.command()
def check(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what the policy would take now and in the coming weeks; nothing is taken.

    The numbers are of sessions in which nothing happens until then. Runs in flight and awaited
    answers are not looked at.
    """
    settings = _settings(store, "retention check")
    policy = _policy(settings)
    found, confirmation = run_async(_preview(settings, policy))
    is_confirmed = confirmation is not None and confirmation.digest == policy.digest
    if as_json:
        from lapse.retention.json import policy_json, preview_json

        print_json(
            {
                "confirmed": is_confirmed,
                **policy_json(policy),
                "apps": preview_json(found),
            }
        )
        return
    _print_preview(found)
    if is_confirmed and confirmation is not None:
        typer.echo(f"this policy was confirmed by {confirmation.by}")
    else:
        typer.echo("this policy is not confirmed, so nothing is taken: `lapse retention confirm`")


@retention_commands.command()
def confirm(
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Confirm the policy: from then on, servers with this policy archive and purge by it.

    Any change of what the policy says must be confirmed anew.
    """
    settings = _settings(store, "retention confirm")
    policy = _policy(settings)
    found, _ = run_async(_preview(settings, policy))
    now = sum(one.sessions - one.exempt for one in found if one.week == 0)
    total = sum(one.sessions for one in found)
    typer.echo(f"{now:,} of {total:,} used sessions are due now", err=True)
    if not yes:
        typer.confirm("Archive and purge by this policy from now on?", abort=True, err=True)
    done = run_async(_confirm(settings, policy))
    typer.echo("the policy is confirmed" if done else "the policy was confirmed already")


def _settings(store: str | None, command: str) -> Settings:
    settings = open_settings(store, verbose=False)
    check_conversations(settings, command)
    if settings.retention_file is None:
        fail("there is no retention policy: set LAPSE_RETENTION_FILE to its file")
    return settings


def _policy(settings: Settings) -> Policy:
    from lapse.retention.policy import read_policy

    assert settings.retention_file is not None
    return read_policy(settings.retention_file)


async def _preview(
    settings: Settings, policy: Policy
) -> tuple[Sequence[Falling], Confirmation | None]:
    from lapse.retention.store import RetentionStore

    async with ready_store(settings) as store:
        retention = RetentionStore(store)
        with waiting("looking at all used sessions"):
            found = await retention.preview_retention(policy)
        return found, await retention.retention_confirmed()


async def _confirm(settings: Settings, policy: Policy) -> bool:
    from lapse.retention.store import RetentionStore

    async with ready_store(settings) as store:
        return await RetentionStore(store).confirm_retention(policy, by=acting_as())


def _print_preview(found: Sequence[Falling]) -> None:
    from rich.console import Console

    from lapse.retention.json import ages, by_app, due_by_age, due_by_week

    titles = ("app", "sessions", "exempt", "due now", "week 1", "week 2", "weeks 3-12")
    table = narrow_table(*titles, whole=titles[1:])
    for app, own in by_app(found).items():
        weeks = due_by_week(own)
        total, exempt = sum(one.sessions for one in own), sum(one.exempt for one in own)
        numbers = (total, exempt, *weeks[:3], sum(weeks[3:-1]))
        table.add_row(app, *(f"{number:,}" for number in numbers))
    console = Console()
    console.print(table)
    _print_bars("due now, by age", ages(), due_by_age(found))
    weeks = due_by_week(found)[:-1]
    _print_bars("due by week", ["now", *(f"week {week}" for week in range(1, len(weeks)))], weeks)


def _print_bars(title: str, names: Sequence[str], numbers: Sequence[int]) -> None:
    typer.echo(f"{title}:")
    most = max(*numbers, 1)
    for name, number in zip(names, numbers, strict=True):
        bar = "█" * -(-number * _BAR // most)
        typer.echo(f"  {name:<14} {number:>10,} {bar}".rstrip())
