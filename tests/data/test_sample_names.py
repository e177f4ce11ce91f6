"""Names of samples, written and read again."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.sample_names import SampleNames

ZONES = [
    None,
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    dt.UTC,
    dt.timezone(dt.timedelta(hours=-3, minutes=-30)),
]
NAMES = st.text() | st.integers() | st.floats() | st.dates() | st.datetimes() | st.booleans()


def again(names, folder):
    names.save(folder)
    return SampleNames.load(folder)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize("first", ["1950-03-26", "2024-10-26 23:30"])
def test_times_are_the_same_after_writing(first, zone, unit, tmp_path):
    times = pd.date_range(first, periods=60, freq="30min", unit=unit, tz=zone)
    names = SampleNames(["a", "b"], np.array([[0, 25], [25, 60]]), times)
    found = again(names, tmp_path / "names")
    assert found.times.equals(times)
    assert found.times.dtype == times.dtype
    assert [found(row) for row in range(60)] == [names(row) for row in range(60)]


@given(st.lists(NAMES, min_size=1))
def test_names_of_any_kind_are_the_same(tmp_path_factory, values):
    for names in (values, np.array(values, dtype=object), pd.Series(values, dtype=object).array):
        found = again(SampleNames(names), tmp_path_factory.mktemp("names") / "of")
        known = SampleNames(names)
        assert [found(n) for n in range(len(values))] == [known(n) for n in range(len(values))]


@pytest.mark.parametrize("names", [np.arange(5), np.arange(5) / 3, np.array(["x", "01"])], ids=str)
def test_arrays_of_names_are_the_same(names, tmp_path):
    found = again(SampleNames(names), tmp_path / "names")
    assert [*map(found, range(len(names)))] == [*map(SampleNames(names), range(len(names)))]
    bounds = np.column_stack([np.arange(len(names)), 1 + np.arange(len(names))])
    rows = again(SampleNames(names, bounds), tmp_path / "rows")
    assert rows.times is None
    assert rows(1) == SampleNames(names, bounds)(1)
