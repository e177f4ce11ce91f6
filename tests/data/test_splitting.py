import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.splits import Need, split_rows
from tuner.errors import DataError
from tuner.experiment import Split

MONTHS = pd.date_range("1949-01", periods=144, freq="MS")


def split_series(
    bounds, times = None, *, window = 1,
    horizon = 1, first = 0, key = "task.window", **extents,
) :  # fmt: skip
    return split_rows(
        np.array(bounds), Split(**extents), times, need=Need(window, horizon, key), file="s.csv",
        first=np.broadcast_to(np.array(first), len(bounds)),
    )  # fmt: skip


def split(n_rows, times=None, **keys):
    """The training, validation and test rows of one series."""
    parts = split_series([(0, n_rows)], times, **keys)
    train, validation, test = (tuple(p[0].tolist()) for p in parts.named().values())
    return train, validation, test


def assert_refused(*parts, **arguments):
    with pytest.raises(DataError) as caught:
        (split if "n_rows" in arguments else split_series)(**arguments)
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
def test_parts_follow_one_another_and_each_holds_a_window(
    n_rows, validation, test, window, horizon, first
):
    try:
        parts = split(
            n_rows, MONTHS[:n_rows], window=window, horizon=horizon, first=first,
            validation=validation, test=test,
        )  # fmt: skip
    except DataError:
        return
    train, validation, held = parts
    assert [train[0], held[1]] == [first, n_rows]
    assert train[1] == validation[0] < validation[1] == held[0] < n_rows
    assert train[1] - train[0] >= window + horizon
    assert min(validation[1] - validation[0], held[1] - held[0]) >= horizon


def test_the_air_passengers_split_as_documented():
    parts = split(144, validation=0.2, test=0.15, window=12)
    assert parts == ((0, 93), (93, 122), (122, 144))


@pytest.mark.parametrize(
    ("n_rows", "share", "rows"), [(144, 0.15, 22), (144, 0.2, 29), (10, 0.15, 2), (100, 0.145, 15)]
)
def test_halves_are_rounded_up(n_rows, share, rows):
    assert split(n_rows, validation=1, test=share)[2] == (n_rows - rows, n_rows)


def test_a_date_is_where_a_part_begins():
    _, validation, test = split(144, MONTHS, validation="1957-01-01", test="1959-06-15")
    assert [MONTHS[validation[0]], MONTHS[test[0]]] == [
        pd.Timestamp("1957-01-01"),
        pd.Timestamp("1959-07-01"),
    ]
    assert split(144, MONTHS, validation="1957-01-01", test=24)[1] == (96, 120)
    assert split(144, MONTHS, validation=12, test="1959-01-01")[1] == (108, 120)
    utc = MONTHS.tz_localize("UTC")
    assert split(144, utc, validation=12, test="1959-01-01")[1] == (108, 120)


def test_dates_of_no_use_are_refused():
    key = "data.split.validation"
    some = {"n_rows": 144, "times": MONTHS, "test": 12}
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


def test_parts_without_rows_to_train_on_are_refused():
    told = ["data.split", "no row is left to train on", "make validation or test smaller"]
    assert_refused(*told, "validation takes 6 and test 4 of 10", n_rows=10, validation=6, test=4)
    assert_refused(*told, n_rows=10, validation=0.6, test=0.5)
    assert_refused(*told, "test 20 of 10", n_rows=10, validation=1, test=20)
    assert_refused(*told, n_rows=10, times=MONTHS[:10], validation="1949-01-01", test=2)
    assert_refused(*told, n_rows=10, validation=5, test=4, first=1)


def test_parts_shorter_than_the_horizon_are_refused():
    told = ["as many rows as the horizon, 5, got 4 of 40", "task.horizon smaller"]
    assert_refused("data.split.validation: ", *told, n_rows=40, validation=4, test=5, horizon=5)
    assert_refused("data.split.test: ", *told, n_rows=40, validation=5, test=0.1, horizon=5)
    assert_refused("got 0 of 40", n_rows=40, validation=0.01, test=5)


def test_a_training_part_shorter_than_a_window_is_refused():
    parts = [
        "task.window", "needs 15 rows (window 12 + horizon 3)", "got 14 of 24",
        "make task.window, task.horizon, data.split.validation or data.split.test smaller",
    ]  # fmt: skip
    enough = {"validation": 5, "test": 5, "window": 12, "horizon": 3}
    assert_refused(*parts, n_rows=24, **enough)
    assert split(25, **enough)[0] == (0, 15)
    assert_refused("got 14 of 25", n_rows=25, first=1, **enough)
    assert_refused(
        "s.csv: search_space.window: ", "make search_space.window, task.horizon",
        n_rows=24, key="search_space.window", **enough,
    )  # fmt: skip
    assert_refused(
        "the first 9 have no difference, lag or known value", n_rows=25, first=9, **enough
    )


def folds(n_rows, *, first=0, **keys):
    """The training and validation rows of every fold of one series."""
    given = {"test": 10, **keys}
    validation = {k: given.pop(k) for k in ("folds", "size", "gap") if k in given}
    parts = split_series([(0, n_rows)], first=first, validation=validation, **given)
    return [
        (tuple(a[0].tolist()), tuple(b[0].tolist()))
        for a, b in zip(parts.train, parts.validation, strict=True)
    ]


def test_rolling_origins_are_consecutive_pieces_before_the_test():
    assert folds(60, folds=3, size=5) == [
        ((0, 35), (35, 40)),
        ((0, 40), (40, 45)),
        ((0, 45), (45, 50)),
    ]
    assert folds(60, folds=2, size=0.1)[0] == ((0, 38), (38, 44))  # of all rows
    assert folds(60, folds=1, size=5, first=3) == [((3, 45), (45, 50))]
    parts = split_series([(0, 60)], validation={"folds": 2, "size": 5}, test=10)
    assert list(parts.named()) == ["training", "validation 1", "validation 2", "test"]
    assert parts.named()["training"].tolist() == [[0, 45]]
    assert parts.test.tolist() == [[50, 60]]
    assert list(split_series([(0, 60)], validation={"folds": 1, "size": 5}, test=10).named())[
        1
    ] == ("validation")


def test_the_gap_is_one_less_than_the_horizon_unless_it_is_given():
    assert folds(60, folds=1, size=5, horizon=4) == [((0, 42), (45, 50))]
    assert folds(60, folds=1, size=5, horizon=4, gap=0) == [((0, 45), (45, 50))]
    assert folds(60, folds=1, size=5, gap=7) == [((0, 38), (45, 50))]


def test_folds_that_leave_too_little_are_refused():
    def refused(*parts, **keys):
        with pytest.raises(DataError) as caught:
            folds(60, **keys)
        assert [p for p in ("s.csv: data.split.", *parts) if p not in str(caught.value)] == []

    refused("validation.size: ", "a piece needs as many rows as the horizon, 6, got 5 of 60",
            folds=2, size=5, horizon=6)  # fmt: skip
    refused("got 0 of 60", folds=2, size=0.001)
    refused("validation.folds: fold 1 needs 14 rows to train on (window 12 + horizon 2), got 9 of",
            "8 pieces of 5, a gap of 1 and 10 for the test", "make folds, size or the window",
            folds=8, size=5, window=12, horizon=2)  # fmt: skip
    refused("got 0 of 60", folds=3, size=0.5)
    refused("got 0 of 60", folds=1, size=10, gap=60)
    refused("data.split.test: ", folds=1, size=10, test=4, horizon=5)


@st.composite
def calendars(draw):
    """Bounds and times of several series over the same months, none of them long enough alone."""
    ranges = draw(
        st.lists(st.tuples(st.integers(0, 100), st.integers(1, 80)), min_size=1, max_size=4)
    )
    each = [MONTHS[a : a + n] for a, n in ranges]
    ends = np.cumsum([len(t) for t in each])
    bounds = [(int(e - len(t)), int(e)) for e, t in zip(ends, each, strict=True)]
    return bounds, each[0].append(each[1:])


@given(
    given=calendars(),
    validation=st.one_of(
        extents, st.fixed_dictionaries({"folds": st.integers(1, 4), "size": st.integers(1, 12)})
    ),
    test=extents,
    horizon=st.integers(1, 4),
)
def test_series_are_cut_at_common_times(given, validation, test, horizon):
    bounds, times = given
    try:
        parts = split_series(bounds, times, horizon=horizon, validation=validation, test=test)
    except DataError:
        return
    for train, later in zip(parts.train, parts.validation, strict=True):
        seen = [times[s + a : s + b] for (s, _), (a, b) in zip(bounds, train, strict=True)]
        scored = [times[s + a : s + b] for (s, _), (a, b) in zip(bounds, later, strict=True)]
        tested = [times[s + a : s + b] for (s, _), (a, b) in zip(bounds, parts.test, strict=True)]
        latest = max(t[-1] for t in seen if len(t))
        assert latest < min(t[0] for t in scored if len(t))
        assert max(t[-1] for t in scored if len(t)) < min(t[0] for t in tested if len(t))
    for i, (start, end) in enumerate(
        bounds
    ):  # every row before the test is in order, and none lost
        pieces = [p[i].tolist() for p in (*parts.validation, parts.test)]
        assert pieces[-1][1] == end - start
        assert [a[1] for a in pieces[:-1]] == [b[0] for b in pieces[1:]]


def test_fractions_and_numbers_are_of_the_distinct_times():
    bounds, times = [(0, 100), (100, 150)], MONTHS[:100].append(MONTHS[50:100])
    parts = split_series(bounds, times, validation=0.2, test=10)
    assert parts.train[0].tolist() == [[0, 70], [0, 20]]
    assert parts.validation[0].tolist() == [[70, 90], [20, 40]]
    assert parts.test.tolist() == [[90, 100], [40, 50]]


def test_series_without_times_are_cut_each_by_its_own_rows():
    parts = split_series([(0, 100), (100, 140), (140, 145)], validation=0.2, test=0.1)
    assert parts.train[0].tolist() == [[0, 70], [0, 28], [0, 3]]
    assert parts.test.tolist() == [[90, 100], [36, 40], [4, 5]]
    parts = split_series([(0, 100), (100, 105)], validation=20, test=10)
    assert parts.train[0].tolist() == [[0, 70], [0, 0]]  # the second one is of the test part
    assert parts.validation[0].tolist() == [[70, 90], [0, 0]]
    assert parts.test.tolist() == [[90, 100], [0, 5]]


def test_one_of_several_series_has_to_hold_each_part():
    times = MONTHS[:40].append(MONTHS[40:80])
    assert_refused("the training part needs 60 rows", "got 40 of 80", bounds=[(0, 40), (40, 80)],
                   times=times, validation=10, test=10, window=59)  # fmt: skip
    assert split_series([(0, 40), (40, 80)], times, validation=10, test=10, window=39)
