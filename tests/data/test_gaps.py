"""`missing: skip`: windows that cross a gap are not trained on, scored, or forecast from."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner import search
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.errors import DataError, ExperimentError
from tuner.experiment import Experiment


def experiment(folder, frame, *, task=None, **data):
    frame.to_csv(folder / "data.csv", index=False)
    values = {
        "name": "gaps",
        "data": {
            "path": str(folder / "data.csv"), "time": "t", "target": "y", "features": ["y", "x"],
            "missing": "skip", "split": {"validation": 14, "test": 12}, **data,
        },
        "task": {"window": 3, "horizon": 2} if task is None else task,
    }  # fmt: skip
    return Experiment.from_dict(values)


def table(n, y_missing=(), x_missing=(), rows_missing=()):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "t": pd.date_range("2020-01-01", periods=n, freq="h").astype(str),
            "y": 50 + rng.normal(size=n).cumsum(),
            "x": rng.normal(size=n),
        }
    )
    frame.loc[[*y_missing], "y"] = np.nan
    frame.loc[[*x_missing], "x"] = np.nan
    return frame.drop(index=[*rows_missing])


places = st.sets(st.integers(1, 58), max_size=4)


@settings(deadline=None, max_examples=30)
@given(y=places, x=places, rows=places, lag=st.sampled_from([None, 1, 4]), diff=st.booleans())
def test_windows_are_those_that_a_loop_over_the_file_finds(y, x, rows, lag, diff, tmp_path_factory):
    folder, n, window, horizon = tmp_path_factory.mktemp("gaps"), 60, 3, 2
    rows = rows - {0, n - 1}
    more = {} if lag is None else {"lags": {"x": [lag]}}
    transform = "difference" if diff else "none"
    asked = experiment(folder, table(n, y, x, rows), transform=transform, **more)
    try:
        (ref,) = prepare(asked, folder / "search").folds
    except DataError:
        return  # nothing is left of a part
    no_y, no_x = y | rows, x | rows
    no_y = no_y | ({t + 1 for t in no_y} if diff else set())
    read = no_y | no_x | ({t + lag for t in no_x} if lag is not None else set())
    first = max(int(diff), lag or 0)

    def fits(t, begin, end):
        inside = begin <= t and t + horizon <= end and t - window >= first
        known = not any(k in no_y for k in range(t, t + horizon))
        return inside and known and not any(k in read for k in range(t - window, t))

    for samples, begin, end in ((ref.train_samples(), 0, 34), (ref.evaluate_samples(), 34, 48)):
        assert samples.tolist() == [t for t in range(n) if fits(t, begin, end)]
    (opened,) = open_test_part(asked, folder / "test").folds
    assert opened.evaluate_samples().tolist() == [t for t in range(n) if fits(t, 48, 60)]


def test_check_reports_missing_values_and_few_scored_rows(tmp_path):
    notes = dict(
        check_data(experiment(tmp_path, table(60, y_missing=[40], rows_missing=[20]))).facts.notes
    )
    assert notes["missing"] == "1 value and 1 row; windows that cross them are left out"
    assert "in validation" in notes["scored"]


def test_sequences_have_no_windows_to_leave_out(tmp_path):
    with pytest.raises(ExperimentError, match=r"data\.missing: leaves out windows .*write ffill"):
        experiment(tmp_path, table(60), task={"kind": "regress"}, id="t", time=None)


def test_a_model_forecasts_from_no_window_that_crosses_a_gap(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = experiment(tmp_path, table(90, y_missing=[30], rows_missing=[40]))
    quick = asked.changed({"budget": {"trials": 1, "epochs": 1}, "finalists.top": 0})
    study = search(quick, tracking=False, progress=False, workers=1)
    rows = table(20, y_missing=[7])
    found = study.predict(rows, all_windows=True)
    begins = found[found.step == 1]["t"]
    expected = [t for t in range(3, 21) if t not in (8, 9, 10)]
    assert begins.tolist() == [pd.Timestamp("2020-01-01") + pd.Timedelta(hours=t) for t in expected]
    whole = study.predict(table(20), all_windows=True)  # nothing else has changed
    pd.testing.assert_series_equal(found.y[-10:], whole.y[-10:], check_index=False)
    with pytest.raises(DataError, match=r"needs values in each of the 3 rows .*none in row 19"):
        study.predict(table(20, x_missing=[18]))
    assert len(study.predictions) > 0
