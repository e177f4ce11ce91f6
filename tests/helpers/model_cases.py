"""Experiments of every kind, and data for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.model_folders import months

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


WEATHER = np.array(["sun", "rain", "True", "007", "hail", "snow"])


def weathered() -> pd.DataFrame:
    """Stores with categories, of which snow and hail come late; and what only becomes known so."""
    frame = stores()
    late = (frame["hour"] > HOURS[320]).to_numpy()
    kinds = RNG.integers(0, 4, len(frame)) + 2 * late
    return frame.assign(weather=WEATHER[kinds], open=RNG.integers(0, 2, len(frame)) > 0)


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
    "logs of a season's differences, differenced": (
        months(),
        {
            "data": {
                "time": "month", "target": ["sales", "price"],
                "transform": ["log", {"seasonal_difference": 5}, "difference"],
            },
            "task": {"window": 4, "horizon": 7},
            "hyperparameters": {"hidden_size": 8},
        },
    ),
    "powers of series, each on its own scale": (
        stores().assign(visits=lambda f: f["visits"] * np.where(f["store"] == "01", 1, 90)),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["units", "visits"], "missing": "ffill",
                "features": ["units", "price", "visits"], "lags": {"visits": [3]},
                "transform": ["box_cox", "difference"], "scale_by": "series",
            },
            "task": {"window": 5, "horizon": 2},
            "hyperparameters": {"hidden_size": 8},
        },
    ),
    "quantiles of a season's differences, each series between its ends": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "visits", "missing": "ffill",
                "transform": {"seasonal_difference": 24}, "scale": "minmax",
                "scale_by": "series", "calendar": ["hour"],
            },
            "task": {"window": 6, "horizon": 4, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {"hidden_size": 8},
        },
    ),
    "categories, some known ahead, and which series it is, in segments": (
        weathered(),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["units", "visits"], "missing": "ffill",
                "categories": ["weather", "store", "open"], "known_future": ["open", "price"],
                "calendar": ["hour"], "scale_by": "series", "lags": {"units": [2]},
                "decompose": {"kind": "moving_average", "length": 3},
            },
            "task": {"window": 8, "horizon": 5},
            "hyperparameters": {
                "decoder": "segments", "segment": 4, "linear_path": True, "hidden_size": 8,
                "normalize": "standard", "conv_channels": 4, "embedding_size": 3,
                "pooling": "attention",
            },
        },
    ),
    "quantiles of resampled rows with categories known ahead, step by step": (
        weathered(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "visits", "missing": "interpolate",
                "resample": "2h", "aggregate": "sum", "categories": ["weather", "store"],
                "known_future": ["weather"], "features": ["visits", "weather"],
            },
            "task": {"window": 6, "horizon": 4, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {"decoder": "recursive", "hidden_size": 8, "normalize": "last"},
        },
    ),
    "nothing but categories, and a local head": (
        weathered(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "visits", "missing": "ffill",
                "categories": ["weather", "store"], "known_future": ["weather"],
                "features": ["weather"],
            },
            "task": {"window": 4, "horizon": 3},
            "hyperparameters": {"hidden_size": 8},
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
    "the spread of two targets taken off, lags too, in segments and on a linear path": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["units", "visits"],
                "missing": "interpolate", "lags": {"units": [1, 24], "price": [1]},
            },
            "task": {"window": 10, "horizon": 5},
            "hyperparameters": {
                "normalize": "standard", "linear_path": True, "segment": 4, "hidden_size": 8,
                "decoder": "segments", "conv_channels": 6, "pooling": "attention",
            },
        },
    ),
    "quantiles of logs above the last value, on a linear path from another window": (
        months(),
        {
            "data": {"time": "month", "target": "sales", "transform": "log"},
            "task": {"window": 12, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {
                "normalize": "last", "linear_path": True, "window": 8, "hidden_size": 8,
                "cell": "gru",
            },
        },
    ),
    "a moving average of two targets and their lags, in segments and on a linear path": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["units", "visits"], "missing": "ffill",
                "features": ["price", "visits", "units"], "lags": {"units": [2]},
                "decompose": {"kind": "moving_average", "length": 6}, "scale_by": "series",
            },
            "task": {"window": 8, "horizon": 2},
            "hyperparameters": {
                "normalize": "standard", "linear_path": True, "segment": 4, "hidden_size": 8,
            },
        },
    ),
    "modes of a window that is not the task's": (
        months(),
        {
            "data": {
                "time": "month", "target": "sales", "features": ["price", "sales"],
                "decompose": {"kind": "emd", "components": 3},
            },
            "task": {"window": 12, "horizon": 3},
            "hyperparameters": {
                "normalize": "standard", "linear_path": True, "window": 9, "hidden_size": 8,
            },
        },
    ),
    "modes of two targets of series": (
        stores().query("hour < '2024-01-09'"),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["visits", "units"], "missing": "ffill",
                "decompose": {"kind": "emd", "components": 2},
            },
            "task": {"window": 7, "horizon": 2, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {"normalize": "last", "hidden_size": 8, "pooling": "attention"},
        },
    ),
    "prices and months known ahead, decoded step by step": (
        months(),
        {
            "data": {
                "time": "month", "target": "sales", "transform": "log", "calendar": ["month"],
                "known_future": ["price"], "lags": {"price": [1], "sales": [2]},
            },
            "task": {"window": 6, "horizon": 4},
            "hyperparameters": {"decoder": "recursive", "hidden_size": 8},
        },
    ),
    "quantiles of series with own scales, with prices known ahead, on a linear path": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "units", "missing": "interpolate",
                "known_future": ["price"], "calendar": ["hour"], "scale_by": "series",
            },
            "task": {"window": 6, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {"linear_path": True, "normalize": "mean", "hidden_size": 8},
        },
    ),
    "differences of two targets in segments, with prices known ahead, on a linear path": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": ["units", "visits"], "missing": "ffill",
                "known_future": ["price"], "transform": "difference",
            },
            "task": {"window": 10, "horizon": 5},
            "hyperparameters": {
                "linear_path": True, "decoder": "segments", "segment": 4, "hidden_size": 8,
                "pooling": "attention",
            },
        },
    ),
    "resampled, the calendar alone known ahead": (
        stores(),
        {
            "data": {
                "id": "store", "time": "hour", "target": "visits", "missing": "ffill",
                "resample": "6h", "calendar": ["hour"], "known_future": [],
                "split": {"validation": 10, "test": 8},
            },
            "task": {"window": 4, "horizon": 2},
            "hyperparameters": {"hidden_size": 8, "cell": "gru"},
        },
    ),
    "rows alone with prices known ahead": (
        months().drop(columns="month"),
        {
            "data": {
                "target": "sales", "known_future": ["price"],
                "decompose": {"kind": "emd", "components": 2},
            },
            "task": {"window": 5, "horizon": 3},
            "hyperparameters": {"hidden_size": 8},
        },
    ),
    "rows alone": (
        months().drop(columns="month"),
        {"data": {"target": "sales"}, "hyperparameters": {"hidden_size": 8, "bias": False}},
    ),
}  # fmt: skip


def walks(n: int = 40, steps: int | None = None) -> pd.DataFrame:
    """Sequences of 3 to 9 steps, or so many, interleaved, with labels of each and every step."""
    rows = [
        {"run": f"r{i:02}", "step": 2000 + t, "x": (x := RNG.normal()), "y": RNG.normal(),
         "word": RNG.choice(["up", "down", "NA", "1"]), "code": RNG.integers(0, 6),
         "kind": "ab"[i % 2], "sign": int(x > 0), "size": i / 7, "weight": -i}
        for i in range(n) for t in range(steps or 3 + i % 7)
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
COMING_CLASSES: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "classes of series with gaps, lags and a calendar": (
        stores(mood=lambda f: f["units"].gt(10).map({True: "good", False: "bad"})),
        {
            "data": {
                "id": "store", "time": "hour", "target": "mood", "missing": "ffill",
                "calendar": ["hour"], "lags": {"price": [2]}, "scale_by": "series",
            },
            "task": {"kind": "classify", "window": 6},
            "hyperparameters": {"pooling": "attention", "hidden_size": 8, "segment": 4},
        },
    ),
    "classes of series with prices and the calendar known ahead": (
        stores(mood=lambda f: f["units"].gt(10).map({True: "good", False: "bad"})),
        {
            "data": {
                "id": "store", "time": "hour", "target": "mood", "missing": "ffill",
                "calendar": ["hour"], "known_future": ["price"],
            },
            "task": {"kind": "classify", "window": 6},
            "hyperparameters": {"pooling": "attention", "hidden_size": 8},
        },
    ),
    "classes of series that are categories, in weather that is known ahead": (
        weathered().assign(mood=lambda f: f["units"].gt(10).map({True: "good", False: "bad"})),
        {
            "data": {
                "id": "store", "time": "hour", "target": "mood", "missing": "ffill",
                "categories": ["store", "weather"], "known_future": ["weather"],
            },
            "task": {"kind": "classify", "window": 5},
            "hyperparameters": {"hidden_size": 8, "embedding_size": 2},
        },
    ),
    "three numbered classes after other columns alone, without times": (
        months().assign(kind=lambda f: np.arange(len(f)) * 7 % 3 - 1),
        {
            "data": {"target": "kind", "features": ["price", "sales"], "scale": "minmax"},
            "task": {"kind": "classify", "window": 5},
            "hyperparameters": {"cell": "gru", "conv_channels": 4, "hidden_size": 8},
        },
    ),
}  # fmt: skip
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
    "classes on a linear path, beside segments after a convolution": (
        walks(steps=8),
        {
            "data": {"id": "run", "time": "step", "target": "kind", "features": ["y", "code"]},
            "task": {"kind": "classify"},
            "hyperparameters": {
                "linear_path": True, "segment": 3, "conv_channels": 4, "pooling": "mean",
                "hidden_size": 8,
            },
        },
    ),
    "values on a linear path": (
        walks(steps=5),
        {
            "data": {"id": "run", "target": ["size", "weight"], "features": ["code", "y"]},
            "task": {"kind": "regress"},
            "hyperparameters": {"linear_path": True, "hidden_size": 8},
        },
    ),
    "classes of segments after a convolution": (
        walks(),
        {
            "data": {"id": "run", "time": "step", "target": "kind", "features": ["y", "size"]},
            "task": {"kind": "classify"},
            "hyperparameters": {
                "segment": 4, "conv_channels": 5, "conv_kernel": 4, "pooling": "mean",
                "bidirectional": True, "hidden_size": 8,
            },
        },
    ),
    "labels after a convolution": (
        walks(),
        {
            "data": {"id": "run", "time": "step", "target": "sign", "features": ["y", "size"]},
            "task": {"kind": "label"},
            "hyperparameters": {"conv_channels": 5, "hidden_size": 8},
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
    "values of every step": (
        walks(),
        {
            "data": {
                "id": "run", "time": "step", "target": ["size", "y"], "features": ["weight"],
            },
            "task": {"kind": "regress_steps"},
            "hyperparameters": {"bidirectional": True, "num_layers": 2, "hidden_size": 8},
        },
    ),
    "a value of every token": (
        walks(),
        {
            "data": {"id": "run", "target": "y", "tokens": "word", "scale": "minmax"},
            "task": {"kind": "regress_steps"},
            "hyperparameters": {"cell": "gru", "hidden_size": 8},
        },
    ),
    "the last steps of values": (
        walks(),
        {
            "data": {
                "id": "run", "target": "size", "features": ["y"], "max_length": 3, "keep": "last",
            },
            "task": {"kind": "regress"},
            "hyperparameters": {"hidden_size": 8},
        },
    ),
    "the first words of texts, the most frequent of them": (
        TEXTS,
        {
            "data": {
                "text": "name", "level": "word", "target": "language", "min_count": 2,
                "max_vocabulary": 2, "max_length": 2,
            },
            "task": {"kind": "classify"},
            "hyperparameters": {"hidden_size": 8},
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
