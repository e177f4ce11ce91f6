from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data import DataRef
from tuner.data.splitting import Parts, split_rows
from tuner.errors import DataError
from tuner.experiment import Split

MONTHS = pd.date_range("1949-01", periods=144, freq="MS")


def split(
    n_rows: int, times: pd.DatetimeIndex | None = None, *, window: int = 1, horizon: int = 1,
    first: int = 0, **extents: Any,
) -> Parts:  # fmt: skip
    return split_rows(
        n_rows, Split(**extents), times, window=window, horizon=horizon, file="s.csv", first=first
    )


def assert_refused(*parts: str, **arguments: Any) -> None:
    with pytest.raises(DataError) as caught:
        split(**arguments)
    message = str(caught.value)
    assert message.startswith("s.csv: ")
    assert "\n" not in message
    assert [p for p in parts if p not in message] == [], message


extents = st.one_of(
    st.integers(1, 60),
    st.floats(0.01, 0.6).map(lambda x: round(x, 3)),
    st.integers(0, 143).map(lambda i: str(MONTHS[i].date())),
)


@given(
    n_rows=st.integers(3, 144),
    validation=extents,
    test=extents,
    window=st.integers(1, 20),
    horizon=st.integers(1, 12),
    first=st.integers(0, 1),
)
def test_no_target_is_in_two_parts_and_no_window_leaves_its_bounds(
    n_rows: int, validation: Any, test: Any, window: int, horizon: int, first: int
) -> None:
    try:
        parts = split(
            n_rows, MONTHS[:n_rows], window=window, horizon=horizon, first=first,
            validation=validation, test=test,
        )  # fmt: skip
    except DataError:
        return
    in_order = (parts.train, parts.validation, parts.test)
    assert [parts.train[0], parts.test[1]] == [first, n_rows]
    assert parts.train[1] == parts.validation[0] < parts.validation[1] == parts.test[0] < n_rows
    ref = DataRef("", window, horizon, parts.train, parts.validation, "none", (0.0,), (1.0,))
    claimed: set[int] = set()
    for part in in_order:
        starts = ref.starts(part)
        assert len(starts) >= 1
        assert (np.diff(starts) == 1).all()
        assert starts[0] - window >= first
        targets = set(range(starts[0], starts[-1] + horizon))
        assert targets <= set(range(*part))
        assert not targets & claimed
        assert max(targets) == part[1] - 1  # no row is wasted at a part's end
        claimed |= targets
    for part in in_order[1:]:  # their windows look back, so that every row is scored
        assert ref.starts(part)[0] == part[0]


def test_the_air_passengers_split_as_documented() -> None:
    parts = split(144, validation=0.2, test=0.15, window=12)
    assert parts == Parts((0, 93), (93, 122), (122, 144))


@pytest.mark.parametrize(
    ("n_rows", "share", "rows"), [(144, 0.15, 22), (144, 0.2, 29), (10, 0.15, 2), (100, 0.145, 15)]
)
def test_halves_are_rounded_up(n_rows: int, share: float, rows: int) -> None:
    assert split(n_rows, validation=1, test=share).test == (n_rows - rows, n_rows)


def test_a_date_is_where_a_part_begins() -> None:
    parts = split(144, MONTHS, validation="1957-01-01", test="1959-06-15")
    assert [MONTHS[parts.validation[0]], MONTHS[parts.test[0]]] == [
        pd.Timestamp("1957-01-01"),
        pd.Timestamp("1959-07-01"),
    ]
    assert split(144, MONTHS, validation="1957-01-01", test=24).validation == (96, 120)
    assert split(144, MONTHS, validation=12, test="1959-01-01").validation == (108, 120)
    utc = MONTHS.tz_localize("UTC")
    assert split(144, utc, validation=12, test="1959-01-01").validation == (108, 120)


def test_dates_of_no_use_are_refused() -> None:
    key = "data.split.validation"
    some: dict[str, Any] = {"n_rows": 144, "times": MONTHS, "test": 12}
    assert_refused(key, "time column", "'1957-01-01'", "set data.time", n_rows=144,
                   validation="1957-01-01", test=12)  # fmt: skip
    inside = "1949-01-01 to 1960-12-01"
    assert_refused(key, inside, "1948-12-31", "in between", validation="1948-12-31", **some)
    assert_refused("data.split.test", inside, "got 1961-01-01", n_rows=144, times=MONTHS,
                   validation=3, test="1961-01-01")  # fmt: skip
    assert_refused(key, "before the test part (1960-01-01)", "1960-02-01", "an earlier date",
                   validation="1960-02-01", **some)  # fmt: skip
    assert_refused(key, "before the test part (1957-01-01)", "got 1958-01-01", n_rows=144,
                   times=MONTHS, validation="1958-01-01", test="1957-01-01")  # fmt: skip
    assert_refused(key, "no time zone", validation="1957-01-01T00:00+02:00", **some)


def test_parts_without_rows_to_train_on_are_refused() -> None:
    told = ["data.split", "no row is left to train on", "make validation or test smaller"]
    assert_refused(*told, "validation takes 6 and test 4 of 10", n_rows=10, validation=6, test=4)
    assert_refused(*told, n_rows=10, validation=0.6, test=0.5)
    assert_refused(*told, "test 20 of 10", n_rows=10, validation=1, test=20)
    assert_refused(*told, n_rows=10, times=MONTHS[:10], validation="1949-01-01", test=2)
    assert_refused(*told, n_rows=10, validation=5, test=4, first=1)


def test_parts_shorter_than_the_horizon_are_refused() -> None:
    told = ["as many rows as the horizon, 5, got 4 of 40", "task.horizon smaller"]
    assert_refused("data.split.validation: ", *told, n_rows=40, validation=4, test=5, horizon=5)
    assert_refused("data.split.test: ", *told, n_rows=40, validation=5, test=0.1, horizon=5)
    assert_refused("got 0 of 40", n_rows=40, validation=0.01, test=5)


def test_a_training_part_without_a_window_is_refused_with_what_is_needed() -> None:
    parts = [
        "task.window", "needs 15 rows (window 12 + horizon 3)", "got 14 of 24",
        "make task.window, task.horizon, data.split.validation or data.split.test smaller",
    ]  # fmt: skip
    enough: dict[str, Any] = {"validation": 5, "test": 5, "window": 12, "horizon": 3}
    assert_refused(*parts, n_rows=24, **enough)
    assert split(25, **enough).train == (0, 15)
    assert_refused("got 14 of 25", n_rows=25, first=1, **enough)
