"""The way back from a migration: the old tables are put back, or dropped for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lapse.core.errors import StoreRefusedError
from lapse.databases.v0.place import Look, Place, Work
from lapse.databases.v0.rows import BATCHES, OLD, TABLES, UNDONE, is_old
from lapse.databases.v0.sums import Bars, no_bars, sum_of_batches, sum_of_new


@dataclass(frozen=True, slots=True)
class Changed:
    """A table that was written to since the migration: its rows then, and now."""

    table: str
    then: int
    now: int


async def undoing(place: Place, bars: Bars = no_bars) -> Sequence[Changed]:
    """Return which tables were written to since the migration, and change nothing.

    Raises:
        StoreRefusedError: there is no migration to undo.
    """
    _check_kept(await place.look(), place)
    async with place.reading() as work:
        return await _changed(work, bars)


async def undo(place: Place, bars: Bars = no_bars) -> Sequence[Changed]:
    """Put the old tables back as they were; return which new ones had changed, and are kept.

    If nothing was written since the migration, the new tables are dropped; otherwise they are kept
    under names that begin with `lapse_undone_`.

    Raises:
        StoreRefusedError: there is no migration to undo, somebody writes, or an earlier undo has
            kept tables.
    """
    async with place.locked(alone=True) as work:
        found = await work.look()
        _check_kept(found, place)
        if found.hangs:
            raise StoreRefusedError(
                f"{place.name}: {found.hangs}, and would not follow to the old tables; remove it "
                "first"
            )
        changed = await _changed(work, bars)
        if changed and found.columns.get(f"{UNDONE}events"):
            raise StoreRefusedError(
                f"{place.name}: an earlier undo has kept {UNDONE}events; remove or rename the "
                f"tables {UNDONE}… first"
            )
        await work.swap_back(keeping=bool(changed))
    return changed


async def drop(place: Place) -> None:
    """Drop the old tables, for good.

    Raises:
        StoreRefusedError: there are none.
    """
    async with place.locked(alone=True) as work:
        _check_kept(await work.look(), place)
        await work.drop()


def _check_kept(found: Look, place: Place) -> None:
    whole = all(found.columns.get(f"{OLD}{table.name}") for table in TABLES)
    if not whole or is_old(found.columns) or not found.columns.get(BATCHES):
        raise StoreRefusedError(
            f"{place.name}: keeps no old tables ({OLD}events) of a migration from version 0; give "
            "the URL of a database that was migrated, and has not dropped them"
        )


async def _changed(work: Work, bars: Bars) -> Sequence[Changed]:
    batches, changed = await work.batches(), []
    with bars("comparing") as tell:
        done = 0
        for table in TABLES:
            then = sum_of_batches(one for one in batches if one.table == table.name)
            rows, total = await sum_of_new(work, "", table)
            done += rows
            tell(done)
            if (rows, total) != (then.rows - then.orphans, then.new_sum):
                changed.append(Changed(table.name, then.rows - then.orphans, rows))
    return changed
