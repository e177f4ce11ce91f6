"""What `tuner predict --all` says of a window or sequence is what was scored in training."""

import copy

import numpy as np
import pandas as pd
import pytest
from helpers.model_cases import COMING_CLASSES, EVERY, FORECASTS, SEQUENCES
from helpers.model_folders import make_model, predicted_in_training

from tuner.data.prepared import check_data
from tuner.errors import DataError
from tuner.prediction import load_model
from tuner.tables.timestamps import show_time

pytestmark = [
    pytest.mark.filterwarnings("ignore:no forecast after the last"),  # of rows to come
    pytest.mark.filterwarnings("ignore:the model was not trained on weather 'hail', 'snow'"),
    pytest.mark.filterwarnings("ignore:.* tokens are not in the model's vocabulary"),
]
PARQUET = "quantiles of series with lags, a calendar, gaps and attention"


def in_training(training, folder):
    """The samples that are scored and tested, and what is predicted of them in training."""
    for part in (training.data, check_data(training.experiment).write_test(folder)):
        samples, expected = predicted_in_training(training, part)
        assert len(samples) > 3
        yield samples, expected


def places(found, data):
    """The number of each predicted row, by what people call it."""
    rows = [show_time(p) if isinstance(p, pd.Timestamp) else p for p in found[data.time or "row"]]
    names = found["store"] if data.id else [""] * len(found)
    return {f"{n} {p}".strip(): i for i, (n, p) in enumerate(zip(names, rows, strict=True))}


@pytest.mark.parametrize(
    ("name", "file"), [*((name, "data.csv") for name in FORECASTS), (PARQUET, "data.parquet")]
)
def test_validation_and_test_forecasts_equal_those_of_training(name, file, kind, tmp_path):
    training, folder = kind(name, file)
    found = load_model(folder / "model").predict(folder / file, all_windows=True)
    first = found[found["step"] == 1]
    at = places(first, training.experiment.data)
    assert len(at) == len(first)
    here = found.to_numpy()[:, list(found).index("step") + 1 :].astype(np.float64)
    assert np.isfinite(here).all()
    for samples, expected in in_training(training, tmp_path):
        if expected.ndim == 4:  # the median comes first
            order = [expected.shape[3] // 2, *(i for i in range(expected.shape[3]) if i != 1)]
            expected = expected[..., order]
        of = here.reshape(len(first), *expected.shape[1:])[[at[sample] for sample in samples]]
        np.testing.assert_allclose(of, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).std())


@pytest.mark.parametrize("name", COMING_CLASSES)
def test_the_class_of_a_coming_row_is_what_was_said_in_training(name, kind, tmp_path):
    training, folder = kind(name)
    data, classes = training.experiment.data, training.data.facts.classes
    model = load_model(folder / "model")
    found = model.predict(folder / "data.csv", all_windows=True)
    assert list(found) == model.columns
    said = found[[f"p_{name}" for name in classes]].to_numpy()
    assert found[data.target].tolist() == [classes[i] for i in said.argmax(axis=1)]
    at = places(found, data)
    for samples, expected in in_training(training, tmp_path):
        here = said[[at[sample] for sample in samples]]
        np.testing.assert_allclose(here, expected, rtol=1e-5, atol=1e-6)
    if not data.known_future:  # else the file has no rows to come
        coming = model.predict(folder / "data.csv")
        assert len(coming) == (2 if data.id else 1)
        assert coming.iloc[-1].tolist() == found.iloc[-1].tolist()


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_is_said_of_sequences_is_what_was_said_in_training(name, kind, tmp_path):
    training, folder = kind(name)
    found = load_model(folder / "model").predict(folder / "data.csv")
    classes = training.data.facts.classes
    width = len(classes) or len(training.data.facts.targets)
    said = found.iloc[:, -width:].to_numpy(np.float64)
    # Without ids a sample is called by its row in the file, counted from 0.
    names = found["run"] if "run" in found else found.index.astype(str)
    for samples, expected in in_training(training, tmp_path):
        of = np.concatenate([np.flatnonzero(names == sample) for sample in samples])
        here = said[of]
        np.testing.assert_allclose(here, expected.reshape(here.shape), rtol=1e-5, atol=1e-6)
    if classes:
        label = found[training.data.facts.targets[0]]
        assert label.tolist() == [classes[i] for i in said.argmax(axis=1)]


def assert_same(found, expected):
    assert list(found) == list(expected)
    for column in found:
        if found[column].dtype.kind != "f":
            assert found[column].equals(expected[column])
            continue
        scale = np.abs(expected[column]).max()
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", EVERY)
def test_numpy_says_what_onnxruntime_says(name, kind):
    _, folder = kind(name)
    model, path, every = folder / "model", folder / "data.csv", name not in SEQUENCES
    expected = load_model(model).predict(path, all_windows=every)
    in_numpy = load_model(model, numpy=True)
    assert_same(in_numpy.predict(path, all_windows=every), expected)
    assert_same(copy.deepcopy(in_numpy).predict(path, all_windows=every), expected)


@pytest.mark.filterwarnings("ignore::tuner.prediction.PredictionWarning")  # words of the test part
@pytest.mark.parametrize(("level", "cell"), [("character", "lstm"), ("word", "gru")])
def test_what_is_said_of_a_text_is_what_was_said_in_training(level, cell, tmp_path):
    rng = np.random.default_rng(0)
    letters = "abcdefghijklmnopqrstuvwxyz"  # so many that the end is seldom the most probable
    words = ["".join(rng.choice(list(letters), 3)) for _ in range(40)]
    pairs = [[" ".join(rng.choice(words, rng.integers(1, 4))) for _ in range(2)] for _ in range(60)]
    raw = {
        "data": {"text": "a", "target": "b", "level": level, "max_length": 4},
        "task": {"kind": "translate"},
        "hyperparameters": {"beam": 3, "hidden_size": 24, "cell": cell, "bidirectional": True},
    }
    training = make_model(raw, tmp_path, pd.DataFrame(pairs, columns=["a", "b"]))
    model = load_model(tmp_path / "model")
    found = model.predict(tmp_path / "data.csv")
    assert list(found) == ["row", "b"] == model.columns
    target = training.data.pipeline["target_vocabulary"]
    for samples, expected in in_training(training, tmp_path / "test"):
        texts = [[target[n - 2] for n in row if n] for row in expected.astype(int).tolist()]
        joined = [("" if level == "character" else " ").join(text) for text in texts]
        assert len(set(joined)) > 1
        assert found["b"].iloc[[int(sample) for sample in samples]].tolist() == joined


@pytest.mark.parametrize("bad", [7, 0.5])
def test_a_class_that_a_model_of_series_does_not_know_is_refused(bad, kind):
    name = "three numbered classes after other columns alone, without times"
    _, folder = kind(name)
    frame = EVERY[name][0]
    other = frame.assign(kind=[*frame["kind"][:2], bad, *frame["kind"][3:]])
    text = f"'kind' must hold classes that the model .* got '{bad}' in row 3"
    with pytest.raises(DataError, match=text):
        load_model(folder / "model").predict(other)
