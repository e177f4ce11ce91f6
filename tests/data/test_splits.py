"""Splits: shares, and those that a column, a file or groups say."""

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from helpers.refusals import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.data.splits import Need, split_rows
from tuner.errors import DataError, InputError
from tuner.experiment import Experiment, Split

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


def refused(*parts, **arguments):
    cut = split if "n_rows" in arguments else split_series
    assert_refused(lambda: cut(**arguments), *parts, where="s.csv")


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
    refused(key, "time column", "'1957-01-01'", "set data.time", n_rows=144,
                   validation="1957-01-01", test=12)  # fmt: skip
    inside = "1949-01-01 to 1960-12-01"
    refused(key, inside, "1948-12-31", "in between", validation="1948-12-31", **some)
    refused("data.split.test", inside, "got 1961-01-01", n_rows=144, times=MONTHS,
                   validation=3, test="1961-01-01")  # fmt: skip
    refused(key, "before the test part (1960-01-01)", "1960-02-01", "an earlier date",
                   validation="1960-02-01", **some)  # fmt: skip
    refused(key, "before the test part (1957-01-01)", "got 1958-01-01", n_rows=144,
                   times=MONTHS, validation="1958-01-01", test="1957-01-01")  # fmt: skip
    refused(key, "no time zone", validation="1957-01-01T00:00+02:00", **some)


def test_parts_without_rows_to_train_on_are_refused():
    told = ["data.split", "no row is left to train on", "make validation or test smaller"]
    refused(*told, "validation takes 6 and test 4 of 10", n_rows=10, validation=6, test=4)
    refused(*told, n_rows=10, validation=0.6, test=0.5)
    refused(*told, "test 20 of 10", n_rows=10, validation=1, test=20)
    refused(*told, n_rows=10, times=MONTHS[:10], validation="1949-01-01", test=2)
    refused(*told, n_rows=10, validation=5, test=4, first=1)


def test_parts_shorter_than_the_horizon_are_refused():
    told = ["as many rows as the horizon, 5, got 4 of 40", "task.horizon smaller"]
    refused("data.split.validation: ", *told, n_rows=40, validation=4, test=5, horizon=5)
    refused("data.split.test: ", *told, n_rows=40, validation=5, test=0.1, horizon=5)
    refused("got 0 of 40", n_rows=40, validation=0.01, test=5)


def test_a_training_part_shorter_than_a_window_is_refused():
    parts = [
        "task.window", "needs 15 rows (window 12 + horizon 3)", "got 14 of 24",
        "make task.window, task.horizon, data.split.validation or data.split.test smaller",
    ]  # fmt: skip
    enough = {"validation": 5, "test": 5, "window": 12, "horizon": 3}
    refused(*parts, n_rows=24, **enough)
    assert split(25, **enough)[0] == (0, 15)
    refused("got 14 of 25", n_rows=25, first=1, **enough)
    refused(
        "s.csv: search_space.window: ", "make search_space.window, task.horizon",
        n_rows=24, key="search_space.window", **enough,
    )  # fmt: skip
    refused("the first 9 have no difference, lag or known value", n_rows=25, first=9, **enough)


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
        assert_refused(lambda: folds(60, **keys), *parts, where="s.csv")

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
    refused("the training part needs 60 rows", "got 40 of 80", bounds=[(0, 40), (40, 80)],
                   times=times, validation=10, test=10, window=59)  # fmt: skip
    assert split_series([(0, 40), (40, 80)], times, validation=10, test=10, window=39)


def experiment(folder, frame, split, *, test=None, task=None, **data):
    frame.to_csv(folder / "data.csv", index=False)
    if test is not None:
        test.to_csv(folder / "test.csv", index=False)
    values = {
        "name": "own",
        "data": {"path": str(folder / "data.csv"), "target": "y", "split": split, **data},
        "task": task or {"window": 3},
    }
    return Experiment.from_dict(values)


def of_series(folder, ref):
    """The rows that are trained on and evaluated, by their truth."""
    return [
        np.unique(ref.truth_of(samples).ravel()).tolist()
        for samples in (ref.train_samples(), ref.evaluate_samples())
    ]


def table(words, series=1):
    n = len(words)
    frame = pd.DataFrame(
        {
            "t": np.tile(pd.date_range("2020-01-01", periods=n).astype(str), series),
            "y": np.arange(float(n * series)) ** 1.5,
            "part": np.tile(words, series),
        }
    )
    return frame.assign(shop=np.repeat([f"s{i}" for i in range(series)], n))


WORDS = ["train"] * 12 + ["Validation"] * 5 + ["test"] * 4


@pytest.mark.parametrize("time", [None, "t"])
@pytest.mark.parametrize("series", [1, 3])
def test_a_column_tells_the_parts_of_series(time, series, tmp_path):
    frame = table(WORDS, series)
    data = {"time": time, "features": ["y"]} | ({"id": "shop"} if series > 1 else {})
    asked = experiment(tmp_path, frame, {"column": "part"}, **data)
    data_of = prepare(asked, tmp_path / "search")
    (ref,) = data_of.folds
    place = frame.groupby("shop").cumcount()
    trained, validated = of_series(tmp_path, ref)
    assert trained == sorted(frame.y[(frame.part == "train") & (place >= 3)])
    assert validated == sorted(frame.y[frame.part == "Validation"])
    assert len(ref.load("truth")) == 17 * series  # no row of the test is there
    (opened,) = open_test_part(asked, tmp_path / "test").folds
    assert of_series(tmp_path, opened)[1] == sorted(frame.y[frame.part == "test"])
    assert [p.count for p in check_data(asked).facts.parts] == [n * series for n in (12, 5, 4)]


@settings(max_examples=examples(25))
@given(n=st.integers(8, 14), val=st.integers(1, 5), test=st.integers(1, 5), draw=st.data())
def test_changing_test_rows_changes_nothing_that_a_search_sees(
    n, val, test, draw, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("leak")
    words = ["train"] * n + ["val"] * val + ["test"] * test
    frame = table(words)
    row = draw.draw(st.integers(n + val, len(words) - 1))
    changed = frame.copy()
    changed.loc[row, "y"] = 1e6
    seen = []
    for i, each in enumerate((frame, changed)):
        asked = experiment(folder, each, {"column": "part"}, time="t", features=["y"])
        (ref,) = prepare(asked, folder / str(i)).folds
        seen.append({name: np.array(ref.load(name)) for name in ("inputs", "targets", "truth")})
    for name, array in seen[0].items():
        np.testing.assert_array_equal(array, seen[1][name])


def test_a_step_that_holds_a_validation_row_is_not_trained_on(tmp_path):
    frame = pd.DataFrame(
        {
            "t": pd.date_range("2020-01-01", periods=96, freq="6h").astype(str),
            "y": np.arange(96.0) ** 2,
            "part": ["train"] * 50 + ["validation"] * 26 + ["test"] * 20,  # in the middle of a day
        }
    )
    asked = experiment(tmp_path, frame, {"column": "part"}, time="t", resample="1D", features=["y"])
    parts = check_data(asked).facts.parts
    assert [(p.first, p.last) for p in parts] == [
        ("2020-01-01", "2020-01-12"),
        ("2020-01-13", "2020-01-19"),
        ("2020-01-20", "2020-01-24"),
    ]


def test_missing_rows_between_parts_are_in_no_later_part(tmp_path):
    frame = table(WORDS).drop(index=[11, 12])
    asked = experiment(
        tmp_path, frame, {"column": "part"}, time="t", missing="ffill", features=["y"]
    )
    (ref,) = prepare(asked, tmp_path / "search").folds
    trained, validated = of_series(tmp_path, ref)
    assert validated == frame.y[frame.part == "Validation"].tolist()
    assert trained == frame.y[:11][3:].tolist()


@pytest.mark.parametrize("time", [None, "t"])
def test_a_test_file_is_the_test_set(time, tmp_path):
    frame = table(["x"] * 26).drop(columns="part")
    asked = experiment(
        tmp_path, frame[:20], {"test_file": str(tmp_path / "test.csv"), "validation": 0.25},
        test=frame[20:], time=time, features=["y"],
    )  # fmt: skip
    assert [p.count for p in check_data(asked).facts.parts] == [15, 5, 6]
    (ref,) = prepare(asked, tmp_path / "search").folds
    assert of_series(tmp_path, ref) == [frame.y[3:15].tolist(), frame.y[15:20].tolist()]
    (opened,) = open_test_part(asked, tmp_path / "opened").folds
    assert of_series(tmp_path, opened)[1] == frame.y[20:].tolist()
    # a window of the test part reads the last rows of the other file
    before = check_data(asked).facts.sha256
    frame[20:].assign(y=0.0).to_csv(tmp_path / "test.csv", index=False)
    assert check_data(asked).facts.sha256 != before


def test_rolling_origins_lie_before_a_test_file(tmp_path):
    frame = table(["x"] * 40).drop(columns="part")
    asked = experiment(
        tmp_path, frame[:30],
        {"test_file": str(tmp_path / "test.csv"), "validation": {"folds": 2, "size": 5}},
        test=frame[30:], time="t", features=["y"],
    )  # fmt: skip
    counts = [(p.name, p.count) for p in check_data(asked).facts.parts]
    assert counts == [("training", 25), ("validation 1", 5), ("validation 2", 5), ("test", 10)]


def sequences(n=40, per_group=4):
    of = np.repeat(np.arange(n), 3)
    kind = (of // per_group) % 2
    return pd.DataFrame(
        {
            "of": [f"q{i}" for i in of],
            "x": np.arange(len(of)) + 0.5,
            "y": np.where(kind, "up", "down"),
            "patient": of // per_group + 100,
            "part": np.select([of < n - 12, of < n - 6], ["train", "dev"], "test"),
        }
    )


@pytest.mark.parametrize("mixed", [False, True])
def test_sequences_of_one_group_come_into_one_part(mixed, tmp_path):
    frame = sequences()
    if mixed:  # a patient has sequences of both classes
        frame["y"] = np.where(frame["of"].str[1:].astype(int) % 2, "up", "down")
    frame = frame.drop(columns="part")
    split = {"group": "patient", "validation": 0.2, "test": 0.3, "seed": 3}
    asked = experiment(tmp_path, frame, split, id="of", task={"kind": "classify"})
    dataset = check_data(asked)
    groups = frame.groupby("of", sort=False).patient.first().to_numpy()
    of_part = [set(groups[part]) for part in dataset.draw.named().values()]
    assert [len(part) for part in of_part] == [5, 2, 3]
    assert set.union(*of_part) == set(groups)
    assert dataset.facts.features == ("x",)  # a group is no number to learn from
    if not mixed:  # every class has its share of the groups
        kinds = frame.groupby("of", sort=False).y.first().to_numpy()
        assert all(len(set(kinds[part])) == 2 for part in dataset.draw.named().values())


def test_a_column_and_a_test_file_tell_the_parts_of_sequences(tmp_path):
    frame = sequences()
    task = {"kind": "classify"}
    asked = experiment(tmp_path, frame, {"column": "part"}, id="of", task=task, features=["x"])
    draw = check_data(asked).draw
    assert [len(part) for part in draw.named().values()] == [28, 6, 6]
    assert draw.test.tolist() == [*range(34, 40)]
    rest, test = frame[frame.part != "test"], frame[frame.part == "test"]
    split = {"test_file": str(tmp_path / "test.csv"), "validation": 6}
    asked = experiment(tmp_path, rest, split, test=test, id="of", task=task, features=["x"])
    draw = check_data(asked).draw
    assert [len(part) for part in draw.named().values()] == [28, 6, 6]
    assert draw.test.tolist() == [*range(34, 40)]
    vocabulary = experiment(tmp_path, rest, split, test=test, id="of", task=task, tokens="x")
    assert len(check_data(vocabulary).vocabulary.tokens) == 28 * 3  # of the training part


COLUMN = {"column": "part"}


@pytest.mark.parametrize(
    ("words", "split", "data", "says"),
    [
        (["train"] * 9 + ["test"] * 5, COLUMN, {}, "rows of all three .* none of valid"),
        (["trian", *WORDS], COLUMN, {}, r"got 'trian' in line 2; did you mean 'train'"),
        ([None, *WORDS], COLUMN, {}, r"in every row, got none in line 2; write one"),
        (WORDS, {"column": "prt"}, {}, r"data.split.column: no column 'prt'.*did you mean 'part'"),
        (["test", *WORDS], COLUMN, {}, r"train to valid.* got training in line 3 after test"),
        (
            ["test", *WORDS], COLUMN, {"time": "t"},
            r"in time from train to validation to test, got training in line 14 \(2020-01-13\) and "
            r"test in line 2",
        ),
        (WORDS, {"test_file": "t.csv", "test": 3}, {}, r"test_file: gives the parts itself"),
        (WORDS, {"test_file": "none.csv"}, {}, r"none.csv: data.split.test_file: no such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_split_is_one_line(words, split, data, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        check_data(experiment(tmp_path, table(words), split, features=["y"], **data))


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (lambda f: f[15:], r"times must rise, got 2020-01-16 in line 2 of .*test.csv after 2020"),
        (lambda f: f[20:].drop(columns="y"), r"test.csv: .*test_file: no column 'y' in the file"),
        (lambda f: f[20:].assign(y="a"), r"test.csv: .*must hold numbers.* got 'a' in line 2"),
        (lambda f: f[20:].assign(y=np.nan), r"finite number.*line 2 of .*test.csv"),
        (lambda f: f[20:].drop(index=22), r"2020-01-2\d.*"),
        (lambda f: f[20:20], r"test.csv: data.split.test_file: has column names but no rows"),
    ],
)
def test_what_is_wrong_with_a_test_file_names_it(test, says, tmp_path):
    frame = table(["x"] * 26)
    split = {"test_file": str(tmp_path / "test.csv")}
    asked = experiment(tmp_path, frame[:20], split, test=test(frame), time="t", features=["y"])
    with pytest.raises(InputError, match=says):
        check_data(asked)


def test_a_test_file_begins_after_every_series_of_the_other(tmp_path):
    frame = table(["x"] * 26, 2).drop(columns="part")
    rest, test = frame[frame.t < "2020-01-20"], frame[frame.t >= "2020-01-20"]
    split = {"test_file": str(tmp_path / "test.csv")}
    longer = pd.concat([rest, test[(test.shop == "s1")][:3]])
    test = pd.concat([test[test.shop == "s0"], test[test.shop == "s1"][3:]])
    asked = experiment(tmp_path, longer, split, test=test, time="t", id="shop", features=["y"])
    says = r"test.csv: .*data.csv, which end at 2020-01-22, got 2020-01-20"
    with pytest.raises(InputError, match=says):
        check_data(asked)


@pytest.mark.parametrize(
    ("change", "split", "says"),
    [
        ({"part": ["train", "val", "test"] * 40}, COLUMN, r"one part, got validation after train"),
        ({"patient": [*range(120)]}, {"group": "patient"}, r"same in all rows of a seq.*line 3"),
        ({"patient": [""] * 120}, {"group": "patient"}, "must hold a value in every row"),
        ({"patient": 1}, {"group": "patient"}, "group"),
        ({"y": ["a"] * 102 + ["b"] * 18}, {"column": "part"}, "'b' in validation or test alone"),
        ({}, {"group": "patent"}, "no column 'patent'.*did you mean 'patient'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_parts_of_sequences_is_one_line(change, split, says, tmp_path):
    frame = sequences().assign(**change)
    task = {"kind": "classify"}
    asked = experiment(tmp_path, frame, split, id="of", task=task, features=["x"])
    with pytest.raises(InputError, match=says):
        check_data(asked)


def test_a_sequence_or_a_group_in_both_files_is_refused(tmp_path):
    frame = sequences()
    task = {"kind": "classify"}
    split = {"test_file": str(tmp_path / "test.csv"), "validation": 6}
    asked = experiment(
        tmp_path, frame[:-18], split, test=frame[-24:], id="of", task=task, features=["x"]
    )
    with pytest.raises(InputError, match=r"test.csv: .*both files, got 'q32'"):
        check_data(asked)
    asked = experiment(
        tmp_path, frame[:-18], split | {"group": "patient"}, test=frame[-18:], id="of", task=task,
        features=["x"],
    )  # fmt: skip
    with pytest.raises(InputError, match=r"test.csv: data.split.group: .*both files, got '108'"):
        check_data(asked)


@pytest.mark.parametrize("split", [{"column": "part"}, {"test_file": "test.csv"}])
def test_a_split_is_written_and_read_again(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = experiment(tmp_path, table(WORDS), split)
    (tmp_path / "again.yaml").write_text(asked.to_yaml())
    assert Experiment.load("again.yaml") == asked
    assert asked.changed({"seed": 3}).data.split == asked.data.split
    if "test_file" in split:
        assert asked.data.split.test_file == str(tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("dropped", "wide"),
    [("an empty row", False), ("an empty row", True), ("a repeated header", False)],
)
def test_rows_that_are_left_out_move_no_part_and_no_line(tmp_path, dropped, wide):
    frame = table(WORDS)[["t", "y", "part"]]
    data = {"time": "t", "features": ["y"]}
    if wide:
        frame = frame.rename(columns={"y": "y_a"}).assign(y_b=frame.y + 1)[
            ["t", "y_a", "y_b", "part"]
        ]
        data = {
            "time": "t", "id": "shop", "target": "y",
            "wide": {"id": "shop", "value": "y", "columns": "y_*"},
        }  # fmt: skip
    asked = experiment(tmp_path, frame, COLUMN, **data)
    expected = [p.count for p in check_data(asked).facts.parts]
    lines = (tmp_path / "data.csv").read_text().splitlines()
    more = "," * (len(frame.columns) - 1) if dropped == "an empty row" else lines[0]
    lines = [*lines[:3], more, *lines[3:]]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    assert [p.count for p in check_data(asked).facts.parts] == expected
    lines[9] = lines[9].replace("train", "trian")
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"'trian' in line 10; did you mean 'train'"):
        check_data(asked)


def test_line_numbers_count_titles_and_skipped_rows(tmp_path):
    frame = table(WORDS)[["t", "y", "part"]]
    asked = experiment(
        tmp_path, frame.assign(y=[1, 0, 1] * 7), COLUMN, time="t",
        task={"kind": "classify", "window": 3}, target="y", read={"skip_rows": 2},
    )  # fmt: skip
    lines = (tmp_path / "data.csv").read_text().splitlines()
    lines = ["A title", "of two lines", *lines[:3], ",,", *lines[3:]]
    whole, broken = lines[11], lines[11][:11] + "0.5,train"
    for wrong, told in ((broken, "0.5"), (whole.replace("train", "trian"), "trian")):
        lines[11] = wrong
        (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=rf"{told}.* in line 12"):
            check_data(asked)
