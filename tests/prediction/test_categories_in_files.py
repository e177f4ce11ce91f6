"""What `predict` makes of categories: in files of their own, unknown ones, and damaged models."""

import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import make_model, rewrite

from tuner.errors import DataError, ModelError
from tuner.experiment.data import Data
from tuner.prediction import PredictionWarning, load_model
from tuner.tables.table import read_table
from tuner.winner import example_rows

WINDOW, HORIZON, N = 4, 2, 50


def shops(n=N, names=("a", "b")):
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=n, freq="D")
    kinds = np.array(["sun", "rain", "fog"])
    return pd.concat(
        pd.DataFrame(
            {
                "shop": shop, "day": days, "units": rng.uniform(5, 9, n),
                "weather": kinds[rng.integers(0, 3, n)], "type": "big" if shop == "a" else "small",
            }
        )
        for shop in names
    ).reset_index(drop=True)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    data = {
        "target": "units", "time": "day", "id": "shop", "static": ["type"],
        "categories": ["weather", "type", "shop"], "known_future": ["weather"],
    }  # fmt: skip
    raw = {"data": data, "task": {"window": WINDOW, "horizon": HORIZON}}
    make_model(raw, folder := tmp_path_factory.mktemp("model"), shops())
    return load_model(folder / "model")


def with_coming(frame):
    """Rows of which the last ones of each series are to come."""
    coming = frame.groupby("shop").cumcount(ascending=False) < HORIZON
    return frame.assign(units=frame["units"].mask(coming), type=frame["type"].mask(coming))


def parted(frame):
    coming = frame["units"].isna()
    return frame[~coming], frame[coming][["shop", "day", "weather"]]


def values(found):
    return found["units"].to_numpy()


def test_rows_to_come_of_a_file_of_their_own_say_the_same(model):
    whole = with_coming(shops())
    history, future = parted(whole)
    expected = values(model.predict(whole))
    shuffled = future.iloc[::-1].sort_values("day", kind="stable")
    np.testing.assert_array_equal(values(model.predict(history, future=future)), expected)
    np.testing.assert_array_equal(values(model.predict(history, future=shuffled)), expected)
    other = future.assign(weather="fog")
    assert (values(model.predict(history, future=other)) != expected).any()


def test_a_category_does_not_depend_on_the_rows_around_it(model):
    whole = with_coming(shops())
    of_b = whole[whole["shop"] == "b"]  # other categories come first, and fewer
    both, alone = model.predict(whole), model.predict(of_b.iloc[-WINDOW - HORIZON :])
    np.testing.assert_allclose(values(both[both["shop"] == "b"]), values(alone), rtol=1e-6)


def test_unknown_input_is_read_as_unknown_and_named(model):
    whole = with_coming(shops())
    for column, new in (("weather", "hail"), ("type", "huge"), ("shop", "z")):
        said = []
        for other in (new, "a plague of frogs"):
            text = f"the model was not trained on {column} {other!r}: read as unknown"
            with pytest.warns(PredictionWarning, match=text):
                said.append(values(model.predict(whole.assign(**{column: other}).tail(N))))
        np.testing.assert_array_equal(*said)


def test_an_unknown_category_of_unread_rows_gets_no_note(model):
    whole = with_coming(shops()).tail(N).reset_index(drop=True)
    expected = values(model.predict(whole))
    whole.loc[: N - WINDOW - HORIZON - 1, "weather"] = "hail"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(values(model.predict(whole)), expected)


def test_an_empty_category_of_a_row_to_come_is_refused(model):
    whole = with_coming(shops())
    whole.loc[whole.index[-1], "weather"] = ""
    with pytest.raises(DataError, match="lacks weather"):
        model.predict(whole)


def test_an_empty_category_of_a_row_that_was_is_refused(model):
    whole = with_coming(shops())
    whole.loc[5, "weather"] = None
    with pytest.raises(DataError, match="'weather' must hold a category in every row, got none"):
        model.predict(whole)


def test_a_constant_of_a_series_may_stand_in_its_first_row(model):
    whole = with_coming(shops())
    once = whole.assign(type=whole["type"].mask(whole.groupby("shop").cumcount() > 0))
    np.testing.assert_array_equal(values(model.predict(once)), values(model.predict(whole)))
    whole.loc[5, "type"] = "small"
    with pytest.raises(DataError, match="'small' in row 6 .* and 'big' in its first row; correct"):
        model.predict(whole)


@pytest.mark.parametrize("static", ["type", ["units"], ["weather"], ["nothing"], [1], None])
def test_static_columns_that_no_model_has_are_refused(model, static, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "model")
    rewrite(folder, static=static)
    with pytest.raises(ModelError, match="static: no model has"):
        load_model(folder)


@pytest.mark.parametrize(
    "categories",
    [
        "weather", ["weather"], {"weather": "rain"}, {"weather": ["sun", "rain"]},
        {"weather": ["rain", "rain"]}, {"weather": [1]}, {"units": ["1"]}, {"day": ["x"]},
        {"nothing": ["x"]}, None,
    ],
)  # fmt: skip
def test_categories_that_no_model_has_are_refused(model, categories, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "model")
    rewrite(folder, categories=categories)
    with pytest.raises(ModelError, match="categories: no model has"):
        load_model(folder)


def test_more_categories_than_the_graph_knows_are_refused(model, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "model")
    categories = dict(model.pipeline.categories)
    categories["shop"] = tuple("abcdefgh")
    rewrite(folder, categories={name: list(known) for name, known in categories.items()})
    whole = with_coming(shops()).assign(shop="h").tail(N)
    with pytest.raises(ModelError, match="export the model again"):
        load_model(folder).predict(whole)


@pytest.mark.parametrize("resample", [None, "2D"])
def test_rows_of_the_study_that_a_model_predicts_from_are_found(model, resample, tmp_path):
    """They are MLflow's example of the model."""
    path = model.folder.parent / "data.csv"
    keys = {"path": str(path), "target": "units", "time": "day", "id": "shop", "resample": resample}
    data = Data.model_validate(keys)
    if resample is not None:
        more = {"categories": ["weather", "type"], "known_future": ["weather"]}
        raw = {"data": keys | more, "task": {"window": WINDOW, "horizon": HORIZON}}
        make_model(raw, tmp_path)
        model = load_model(tmp_path / "model")
    sha256 = read_table(data).sha256
    record = SimpleNamespace(data={"sha256": sha256}, experiment=SimpleNamespace(data=data))
    rows = example_rows(model, record)
    assert rows["units"].isna().tolist()[-HORIZON:] == [True] * HORIZON
    assert len(rows) < 2 * N
    assert len(model.predict(rows)) == HORIZON
