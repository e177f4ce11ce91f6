"""What `tuner predict --all` says of a window or sequence is what was scored in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from model_folders import make_model, months, predicted_in_training

from tuner.data.preparing import check_data
from tuner.data.times import show_time
from tuner.prediction import load_model

HOURS = pd.date_range("2024-01-01", periods=400, freq="h")
RNG = np.random.default_rng(7)


def stores(**columns: Any) -> pd.DataFrame:
    """Two series, of which the second begins later, both with rows and values missing."""
    frames = []
    for store, begin in (("01", 0), ("north, old", 150)):
        n = len(HOURS) - begin
        frame = pd.DataFrame(
            {
                "store": store,
                "hour": HOURS[begin:],
                "units": 10 + 3 * np.sin(np.arange(n) / 4) + RNG.normal(size=n),
                "visits": 50 + RNG.normal(size=n),
                "price": RNG.uniform(1, 2, n),
            }
        )
        frame.loc[[20, 21, n - 9], "units"] = np.nan
        frames.append(frame.drop(index=[30, 31, 90, n - 30]))
    return pd.concat(frames).assign(**columns)


FORECASTS: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "log, recursive": (
        months(),
        {
            "data": {"time": "month", "target": "sales", "transform": "log"},
            "task": {"window": 6, "horizon": 4},
            "hyperparameters": {"decoder": "recursive", "num_layers": 2, "hidden_size": 8},
        },
    ),
    "difference, minmax, two targets": (
        months(),
        {
            "data": {
                "time": "month", "target": ["sales", "price"],
                "transform": "difference", "scale": "minmax",
            },
            "task": {"window": 5, "horizon": 3},
            "hyperparameters": {"cell": "gru", "hidden_size": [8, 6]},
        },
    ),
    "quantiles of series with lags, a calendar, gaps and attention": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["units", "visits"],
                "features": ["price", "units"], "missing": "interpolate",
                "calendar": ["hour", "weekday"], "lags": {"price": [1, 24], "visits": [2]},
            },
            "task": {"window": 6, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {"pooling": "attention", "bidirectional": True, "hidden_size": 8},
        },
    ),
    "differences of series with gaps, filled and not scaled": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "units", "missing": "ffill",
                "transform": "difference", "scale": "none",
            },
            "task": {"window": 9, "horizon": 2},
            "hyperparameters": {"pooling": "mean", "cell": "peephole", "hidden_size": 8},
        },
    ),
    "resampled": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "visits", "missing": "ffill",
                "resample": "6h", "aggregate": "sum", "calendar": ["hour"], "transform": "log",
                "split": {"validation": 10, "test": 8},
            },
            "task": {"window": 4, "horizon": 2},
            "hyperparameters": {"pooling": "max", "cell": "rnn", "hidden_size": 8},
        },
    ),
    "series without times, quantiles decoded from another window": (
        stores().fillna(1.0),
        {
            "data": {"id": "store", "target": "units", "features": ["units", "price"]},
            "task": {"window": 6, "horizon": 3, "quantiles": [0.25, 0.5]},
            "hyperparameters": {
                "window": 11, "decoder": "recursive", "proj_size": 3, "hidden_size": 8,
            },
        },
    ),
    "rows alone": (
        months().drop(columns="month"),
        {"data": {"target": "sales"}, "hyperparameters": {"hidden_size": 8, "bias": False}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", FORECASTS)
def test_forecasts_of_validation_and_test_windows_are_those_of_training(
    name: str, suffix: str, tmp_path: Path
) -> None:
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


def walks(n: int = 40) -> pd.DataFrame:
    """Sequences of 3 to 9 steps, their rows interleaved, with labels of each and of every step."""
    rows = [
        {"run": f"r{i:02}", "step": 2000 + t, "x": (x := RNG.normal()), "y": RNG.normal(),
         "word": RNG.choice(["up", "down", "NA", "1"]), "code": RNG.integers(0, 6),
         "kind": "ab"[i % 2], "sign": int(x > 0), "size": i / 7, "weight": -i}
        for i in range(n) for t in range(3 + i % 7)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.loc[[4, 9], "x"] = np.nan
    return frame.sort_values(["step", "run"], kind="stable")


TEXTS = pd.DataFrame(
    {
        "name": ["Öl, gut", "aba", "b", "cc d", "NA", "a b a", "dad"] * 6,
        "language": ["01", "02", "01", "03", "02", "03", "01"] * 6,
    }
)
SEQUENCES: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "classes": (
        walks(),
        {
            "data": {
                "id": "run", "time": "step", "target": "kind", "features": ["x", "y"],
                "missing": "ffill",
            },
            "task": {"kind": "classify"},
            "hyperparameters": {"pooling": "attention", "bidirectional": True, "hidden_size": 8},
        },
    ),
    "values": (
        walks(),
        {
            "data": {
                "id": "run", "target": ["size", "weight"], "features": ["y"], "scale": "minmax",
            },
            "task": {"kind": "regress"},
            "hyperparameters": {"pooling": "mean", "cell": "gru", "hidden_size": 8},
        },
    ),
    "labels of tokens": (
        walks(),
        {
            "data": {"id": "run", "time": "step", "target": "sign", "tokens": "word"},
            "task": {"kind": "label"},
            "hyperparameters": {"num_layers": 2, "bidirectional": True, "hidden_size": 8},
        },
    ),
    "classes of numbered tokens": (
        walks(),
        {
            "data": {"id": "run", "target": "kind", "tokens": "code", "vocabulary_size": 6},
            "task": {"kind": "classify"},
            "hyperparameters": {"pooling": "max", "cell": "peephole", "hidden_size": 8},
        },
    ),
    "texts by character": (
        TEXTS,
        {
            "data": {"text": "name", "target": "language"},
            "task": {"kind": "classify"},
            "hyperparameters": {"hidden_size": 8, "proj_size": 2},
        },
    ),
    "texts by word": (
        TEXTS,
        {
            "data": {"text": "name", "level": "word", "target": "language"},
            "task": {"kind": "classify"},
            "hyperparameters": {"cell": "rnn", "nonlinearity": "relu", "hidden_size": 8},
        },
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::tuner.prediction.PredictionWarning")  # tokens of the test part
@pytest.mark.parametrize("name", SEQUENCES)
def test_what_is_said_of_sequences_is_what_was_said_in_training(name: str, tmp_path: Path) -> None:
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
        if raw["task"]["kind"] == "label":
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
