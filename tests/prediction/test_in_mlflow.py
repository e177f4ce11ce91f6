"""A model of every kind in MLflow says what it says in its folder."""

import warnings

import pandas as pd
import pytest
from helpers.model_cases import FORECASTS, SEQUENCES

from tuner.prediction import load_model
from tuner.tracking import open_store
from tuner.winner import log_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MLflow about its own types
    import mlflow.pyfunc

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # what MLflow and its database library
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # say about themselves
    pytest.mark.filterwarnings("ignore::tuner.prediction.PredictionWarning"),
]

FAST = (
    "log, recursive", "labels of tokens", "texts by word",
)  # fmt: skip
CASES = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in FORECASTS | SEQUENCES
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield open_store()


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_mlflow_keeps_predicts_what_its_folder_does(name, kind, client, monkeypatch):
    _, folder = kind(name)
    model = load_model(folder / "model")
    run = client.create_run("0")
    texts = dict.fromkeys(("store", "name", "language"), str)
    read = pd.read_csv(folder / "data.csv", dtype=texts, keep_default_na=False, na_values=[""])
    columns = model.pipeline.columns
    if columns.known_future:  # the last rows are to come
        of = read.groupby(columns.id) if columns.id else read.assign(all=0).groupby("all")
        each = 1 if columns.resample is None else 2  # rows of a step
        coming = of.cumcount(ascending=False) < each * model.pipeline.horizon
        read[columns.targets] = read[columns.targets].mask(coming)
    example = read[model.pipeline.columns.names]
    if "linear path" not in name and not columns.known_future:  # whose sequences must be whole
        example = example.head(200)

    logged = log_model(client, run.info.run_id, model, example, "this one")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    for rows in (read, loaded.input_example):
        for all_windows in (False, True):
            found = loaded.predict(rows, params={"all_windows": all_windows})
            expected = model.predict(rows, all_windows)
            assert len(found) > 0
            pd.testing.assert_frame_equal(found, expected)
