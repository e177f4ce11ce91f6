"""What `tuner predict --all` says of a window or sequence is what was scored in training."""

import numpy as np
import pandas as pd
import pytest
from helpers.model_cases import COMING_CLASSES, FORECASTS, SEQUENCES
from helpers.model_folders import make_model, predicted_in_training

from tuner.data.prepared import check_data
from tuner.errors import DataError
from tuner.prediction import load_model
from tuner.tables.timestamps import show_time

pytestmark = [
    pytest.mark.filterwarnings("ignore:no forecast after the last"),  # of rows to come
    pytest.mark.filterwarnings("ignore:the model was not trained on weather 'hail', 'snow'"),
]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", FORECASTS)
def test_validation_and_test_forecasts_equal_those_of_training(name, suffix, tmp_path):
    frame, raw = FORECASTS[name]
    path = tmp_path / f"data.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    raw = raw | {"data": raw["data"] | {"path": str(path)}}
    training = make_model(raw, tmp_path)

    found = load_model(tmp_path / "model").predict(path, all_windows=True)
    horizon = training.experiment.task.horizon
    first = found[found["step"] == 1]
    place = [
        show_time(t) if isinstance(t, pd.Timestamp) else str(t)
        for t in first[raw["data"].get("time", "row")]
    ]
    names = first["store"] if "id" in raw["data"] else [""] * len(first)
    at = {f"{n} {p}".strip(): i for i, (n, p) in enumerate(zip(names, place, strict=True))}
    assert len(at) == len(first)

    data = check_data(training.experiment)
    for part in (training.data, data.write_test(tmp_path / "test")):
        samples, expected = predicted_in_training(training, part)
        here = found.to_numpy()[:, list(found).index("step") + 1 :].astype(np.float64)
        assert np.isfinite(here).all()
        here = here.reshape(len(first), horizon, *expected.shape[2:])
        if expected.ndim == 4:  # the median comes first
            order = [expected.shape[3] // 2, *(i for i in range(expected.shape[3]) if i != 1)]
            expected = expected[..., order]
        chosen = here[[at[sample] for sample in samples]]
        assert len(samples) > 3
        np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).std())


@pytest.mark.parametrize("name", COMING_CLASSES)
def test_the_class_of_a_coming_row_is_what_was_said_in_training(name, tmp_path):
    frame, raw = COMING_CLASSES[name]
    frame.to_csv(tmp_path / "data.csv", index=False)
    raw = raw | {"data": raw["data"] | {"path": str(tmp_path / "data.csv")}}
    training = make_model(raw, tmp_path)
    model, classes = load_model(tmp_path / "model"), training.data.facts.classes
    found = model.predict(tmp_path / "data.csv", all_windows=True)
    assert list(found) == model.columns
    said = found[[f"p_{name}" for name in classes]].to_numpy()
    target = raw["data"]["target"]
    assert found[target].tolist() == [classes[i] for i in said.argmax(axis=1)]
    places = found[raw["data"].get("time", "row")]
    names = found["store"] if "id" in raw["data"] else [""] * len(found)
    at = {
        f"{n} {show_time(p) if isinstance(p, pd.Timestamp) else p}".strip(): i
        for i, (n, p) in enumerate(zip(names, places, strict=True))
    }
    for part in (training.data, check_data(training.experiment).write_test(tmp_path / "test")):
        samples, expected = predicted_in_training(training, part)
        here = said[[at[sample] for sample in samples]]
        assert len(samples) > 3
        np.testing.assert_allclose(here, expected, rtol=1e-5, atol=1e-6)
    if raw["data"].get("known_future"):
        return  # the file has no rows to come: see test_rows_to_come
    coming = model.predict(tmp_path / "data.csv")
    n_series = 2 if "id" in raw["data"] else 1
    assert len(coming) == n_series
    assert coming.iloc[-1].tolist() == found.iloc[-1].tolist()


@pytest.mark.filterwarnings("ignore::tuner.prediction.PredictionWarning")  # words of the test part
@pytest.mark.parametrize(("level", "cell"), [("character", "lstm"), ("word", "gru")])
def test_what_is_said_of_a_text_is_what_was_said_in_training(level, cell, tmp_path):
    rng = np.random.default_rng(0)
    letters = "abcdefghijklmnopqrstuvwxyz"  # so many that the end is seldom the most probable
    words = ["".join(rng.choice(list(letters), 3)) for _ in range(40)]
    pairs = [[" ".join(rng.choice(words, rng.integers(1, 4))) for _ in range(2)] for _ in range(60)]
    pd.DataFrame(pairs, columns=["a", "b"]).to_csv(tmp_path / "data.csv", index=False)
    data = {"path": str(tmp_path / "data.csv"), "text": "a", "target": "b", "level": level}
    raw = {
        "data": data | {"max_length": 4},
        "task": {"kind": "translate"},
        "hyperparameters": {"beam": 3, "hidden_size": 24, "cell": cell, "bidirectional": True},
    }
    training = make_model(raw, tmp_path)
    model = load_model(tmp_path / "model")
    found = model.predict(tmp_path / "data.csv")
    assert list(found) == ["row", "b"] == model.columns
    target = training.data.pipeline["target_vocabulary"]
    for part in (training.data, check_data(training.experiment).write_test(tmp_path / "test")):
        samples, expected = predicted_in_training(training, part)
        texts = [[target[n - 2] for n in row if n] for row in expected.astype(int).tolist()]
        joined = [("" if level == "character" else " ").join(text) for text in texts]
        assert len(set(joined)) > 1
        assert found["b"].iloc[[int(sample) for sample in samples]].tolist() == joined


def test_a_class_that_a_model_of_series_does_not_know_is_refused(tmp_path):
    frame, raw = COMING_CLASSES["three numbered classes after other columns alone, without times"]
    frame.to_csv(tmp_path / "data.csv", index=False)
    make_model(raw | {"data": raw["data"] | {"path": str(tmp_path / "data.csv")}}, tmp_path)
    for bad, told in ((7, "got '7' in line 4"), (0.5, "got '0.5' in line 4")):
        frame.assign(kind=[*frame["kind"][:2], bad, *frame["kind"][3:]]).to_csv(
            tmp_path / "other.csv", index=False
        )
        with pytest.raises(DataError, match=f"'kind' must hold classes that the model .* {told}"):
            load_model(tmp_path / "model").predict(tmp_path / "other.csv")


@pytest.mark.filterwarnings("ignore::tuner.prediction.PredictionWarning")  # tokens of the test part
@pytest.mark.parametrize("name", SEQUENCES)
def test_what_is_said_of_sequences_is_what_was_said_in_training(name, tmp_path):
    frame, raw = SEQUENCES[name]
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False)
    raw = raw | {"data": raw["data"] | {"path": str(path), "split": {"test": 0.2}}}
    training = make_model(raw, tmp_path)
    found = load_model(tmp_path / "model").predict(path)

    classes = training.data.facts.classes
    width = len(classes) or len(training.data.facts.targets)
    said = found.iloc[:, -width:].to_numpy(np.float64)
    data = check_data(training.experiment)
    for part in (training.data, data.write_test(tmp_path / "test")):
        samples, expected = predicted_in_training(training, part)
        if raw["task"]["kind"] in ("label", "regress_steps"):
            of = [np.flatnonzero(found["run"] == sample) for sample in samples]
            here = said[np.concatenate(of)]
        elif "id" in raw["data"]:
            here = said[[list(found["run"]).index(sample) for sample in samples]]
        else:
            # Without ids a sample is called by its row in the file, counted from 0.
            here = said[[int(sample) for sample in samples]]
        np.testing.assert_allclose(here, expected.reshape(here.shape), rtol=1e-5, atol=1e-6)
        if classes:
            label = found[training.data.facts.targets[0]]
            best = [classes[i] for i in said.argmax(axis=1)]
            assert label.tolist() == best
