"""The CSV of acts, as spreadsheets read it."""

import csv

import pytest

from backends import T0
from lapse.audit.json import act_csv
from lapse.audit.store import Act


def cells(act, delimiter=","):
    (row,) = csv.reader([act_csv(act)], delimiter=delimiter)
    return row


SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", "x;", "x,", "x|", "\t", "\r\n", "\u202e"])
def test_no_cell_begins_with_a_formula_whatever_a_spreadsheet_takes_for_its_end(sign, before):
    """Seen to fail with a quote at the beginning of the cell only, and without the full width."""
    act = Act(1, T0, f"{before}{sign}1+1", "expired", app_name=f"{before}{sign}2")
    for delimiter in (",", ";", "\t", "|"):
        for cell in cells(act, delimiter):
            assert not cell.lstrip('"').startswith(SIGNS), (delimiter, cell)


def test_every_cell_is_quoted():
    line = act_csv(Act(1, T0, 'o"p', "swept", detail={"expired": -3}))
    assert line.startswith('"1","2030-01-01T12:00:00')
    assert line.endswith('"{""expired"": -3}"\n')
    assert cells(Act(1, T0, 'o"p', "swept"))[2] == 'o"p'
