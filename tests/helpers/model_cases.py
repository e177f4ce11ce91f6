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


STORES = {"id": "store", "time": "hour"}
WALKS = {"id": "run", "time": "step"}


def case(
    frame: pd.DataFrame, task: Any = (), model: Any = (), **data: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A frame, and an experiment on it, without the path of its file."""
    hyperparameters = {"hidden_size": 8} | dict(model)
    return frame, {"data": data, "task": dict(task), "hyperparameters": hyperparameters}


FORECASTS = {
    "log, recursive": case(
        months(), {"window": 6, "horizon": 4}, {"decoder": "recursive", "num_layers": 2},
        time="month", target="sales", transform="log",
    ),
    "difference, minmax, two targets": case(
        months(), {"window": 5, "horizon": 3}, {"cell": "gru", "hidden_size": [8, 6]},
        time="month", target=["sales", "price"], transform="difference", scale="minmax",
    ),
    "quantiles of series with lags, a calendar, gaps and attention": case(
        stores(), {"window": 6, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
        {"pooling": "attention", "bidirectional": True}, **STORES, target=["units", "visits"],
        features=["price", "units"], missing="interpolate", calendar=["hour", "weekday"],
        lags={"price": [1, 24], "visits": [2]},
    ),
    "differences of series with gaps, filled and not scaled": case(
        stores(), {"window": 9, "horizon": 2}, {"pooling": "mean", "cell": "peephole"}, **STORES,
        target="units", missing="ffill", transform="difference", scale="none",
    ),
    "logs of a season's differences, differenced": case(
        months(), {"window": 4, "horizon": 7}, time="month", target=["sales", "price"],
        transform=["log", {"seasonal_difference": 5}, "difference"],
    ),
    "powers of series, each on its own scale": case(
        stores().assign(visits=lambda f: f["visits"] * np.where(f["store"] == "01", 1, 90)),
        {"window": 5, "horizon": 2}, **STORES, target=["units", "visits"], missing="ffill",
        features=["units", "price", "visits"], lags={"visits": [3]},
        transform=["box_cox", "difference"], scale_by="series",
    ),
    "quantiles of a season's differences, each series between its ends": case(
        stores(), {"window": 6, "horizon": 4, "quantiles": [0.1, 0.5, 0.9]}, **STORES,
        target="visits", missing="ffill", transform={"seasonal_difference": 24}, scale="minmax",
        scale_by="series", calendar=["hour"],
    ),
    "categories, some known ahead, and which series it is, in segments": case(
        weathered(), {"window": 8, "horizon": 5},
        {"decoder": "segments", "segment": 4, "linear_path": True, "normalize": "standard",
         "conv_channels": 4, "embedding_size": 3, "pooling": "attention"},
        **STORES, target=["units", "visits"], missing="ffill",
        categories=["weather", "store", "open"], known_future=["open", "price"], calendar=["hour"],
        scale_by="series", lags={"units": [2]}, decompose={"kind": "moving_average", "length": 3},
    ),
    "quantiles of resampled rows with categories known ahead, step by step": case(
        weathered(), {"window": 6, "horizon": 4, "quantiles": [0.1, 0.5, 0.9]},
        {"decoder": "recursive", "normalize": "last"}, **STORES, target="visits",
        missing="interpolate", resample="2h", aggregate="sum", categories=["weather", "store"],
        known_future=["weather"], features=["visits", "weather"],
    ),
    "nothing but categories, and a local head": case(
        weathered(), {"window": 4, "horizon": 3}, **STORES, target="visits", missing="ffill",
        categories=["weather", "store"], known_future=["weather"], features=["weather"],
    ),
    "resampled": case(
        stores(), {"window": 4, "horizon": 2}, {"pooling": "max", "cell": "rnn"}, **STORES,
        target="visits", missing="ffill", resample="6h", aggregate="sum", calendar=["hour"],
        transform="log", split={"validation": 10, "test": 8},
    ),
    "series without times, quantiles decoded from another window": case(
        stores().fillna(1.0), {"window": 6, "horizon": 3, "quantiles": [0.25, 0.5]},
        {"window": 11, "decoder": "recursive", "proj_size": 3}, id="store", target="units",
        features=["units", "price"],
    ),
    "the spread of two targets taken off, lags too, in segments and on a linear path": case(
        stores(), {"window": 10, "horizon": 5},
        {"normalize": "standard", "linear_path": True, "segment": 4, "decoder": "segments",
         "conv_channels": 6, "pooling": "attention"},
        **STORES, target=["units", "visits"], missing="interpolate",
        lags={"units": [1, 24], "price": [1]},
    ),
    "quantiles of logs above the last value, on a linear path from another window": case(
        months(), {"window": 12, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
        {"normalize": "last", "linear_path": True, "window": 8, "cell": "gru"}, time="month",
        target="sales", transform="log",
    ),
    "a moving average of two targets and their lags, in segments and on a linear path": case(
        stores(), {"window": 8, "horizon": 2},
        {"normalize": "standard", "linear_path": True, "segment": 4}, **STORES,
        target=["units", "visits"], missing="ffill", features=["price", "visits", "units"],
        lags={"units": [2]}, decompose={"kind": "moving_average", "length": 6}, scale_by="series",
    ),
    "modes of a window that is not the task's": case(
        months(), {"window": 12, "horizon": 3},
        {"normalize": "standard", "linear_path": True, "window": 9}, time="month", target="sales",
        features=["price", "sales"], decompose={"kind": "emd", "components": 3},
    ),
    "modes of two targets of series": case(
        stores().query("hour < '2024-01-09'"),
        {"window": 7, "horizon": 2, "quantiles": [0.1, 0.5, 0.9]},
        {"normalize": "last", "pooling": "attention"}, **STORES, target=["visits", "units"],
        missing="ffill", decompose={"kind": "emd", "components": 2},
    ),
    "prices and months known ahead, decoded step by step": case(
        months(), {"window": 6, "horizon": 4}, {"decoder": "recursive"}, time="month",
        target="sales", transform="log", calendar=["month"], known_future=["price"],
        lags={"price": [1], "sales": [2]},
    ),
    "quantiles of series with own scales, with prices known ahead, on a linear path": case(
        stores(), {"window": 6, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
        {"linear_path": True, "normalize": "mean"}, **STORES, target="units",
        missing="interpolate", known_future=["price"], calendar=["hour"], scale_by="series",
    ),
    "differences of two targets in segments, with prices known ahead, on a linear path": case(
        stores(), {"window": 10, "horizon": 5},
        {"linear_path": True, "decoder": "segments", "segment": 4, "pooling": "attention"},
        **STORES, target=["units", "visits"], missing="ffill", known_future=["price"],
        transform="difference",
    ),
    "resampled, the calendar alone known ahead": case(
        stores(), {"window": 4, "horizon": 2}, {"cell": "gru"}, **STORES, target="visits",
        missing="ffill", resample="6h", calendar=["hour"], known_future=[],
        split={"validation": 10, "test": 8},
    ),
    "rows alone with prices known ahead": case(
        months().drop(columns="month"), {"window": 5, "horizon": 3}, target="sales",
        known_future=["price"], decompose={"kind": "emd", "components": 2},
    ),
    "rows alone": case(months().drop(columns="month"), {}, {"bias": False}, target="sales"),
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
COMING_CLASSES = {
    "classes of series with gaps, lags and a calendar": case(
        stores(mood=lambda f: f["units"].gt(10).map({True: "good", False: "bad"})),
        {"kind": "classify", "window": 6}, {"pooling": "attention", "segment": 4}, **STORES,
        target="mood", missing="ffill", calendar=["hour"], lags={"price": [2]}, scale_by="series",
    ),
    "classes of series with prices and the calendar known ahead": case(
        stores(mood=lambda f: f["units"].gt(10).map({True: "good", False: "bad"})),
        {"kind": "classify", "window": 6}, {"pooling": "attention"}, **STORES, target="mood",
        missing="ffill", calendar=["hour"], known_future=["price"],
    ),
    "classes of series that are categories, in weather that is known ahead": case(
        weathered().assign(mood=lambda f: f["units"].gt(10).map({True: "good", False: "bad"})),
        {"kind": "classify", "window": 5}, {"embedding_size": 2}, **STORES, target="mood",
        missing="ffill", categories=["store", "weather"], known_future=["weather"],
    ),
    "three numbered classes after other columns alone, without times": case(
        months().assign(kind=lambda f: np.arange(len(f)) * 7 % 3 - 1),
        {"kind": "classify", "window": 5}, {"cell": "gru", "conv_channels": 4}, target="kind",
        features=["price", "sales"], scale="minmax",
    ),
}  # fmt: skip
SEQUENCES = {
    "classes": case(
        walks(), {"kind": "classify"}, {"pooling": "attention", "bidirectional": True}, **WALKS,
        target="kind", features=["x", "y"], missing="ffill",
    ),
    "classes on a linear path, beside segments after a convolution": case(
        walks(steps=8), {"kind": "classify"},
        {"linear_path": True, "segment": 3, "conv_channels": 4, "pooling": "mean"}, **WALKS,
        target="kind", features=["y", "code"],
    ),
    "values on a linear path": case(
        walks(steps=5), {"kind": "regress"}, {"linear_path": True}, id="run",
        target=["size", "weight"], features=["code", "y"],
    ),
    "classes of segments after a convolution": case(
        walks(), {"kind": "classify"},
        {"segment": 4, "conv_channels": 5, "conv_kernel": 4, "pooling": "mean",
         "bidirectional": True},
        **WALKS, target="kind", features=["y", "size"],
    ),
    "labels after a convolution": case(
        walks(), {"kind": "label"}, {"conv_channels": 5}, **WALKS, target="sign",
        features=["y", "size"],
    ),
    "values": case(
        walks(), {"kind": "regress"}, {"pooling": "mean", "cell": "gru"}, id="run",
        target=["size", "weight"], features=["y"], scale="minmax",
    ),
    "labels of tokens": case(
        walks(), {"kind": "label"}, {"num_layers": 2, "bidirectional": True}, **WALKS,
        target="sign", tokens="word",
    ),
    "classes of numbered tokens": case(
        walks(), {"kind": "classify"}, {"pooling": "max", "cell": "peephole"}, id="run",
        target="kind", tokens="code", vocabulary_size=6,
    ),
    "values of every step": case(
        walks(), {"kind": "regress_steps"}, {"bidirectional": True, "num_layers": 2}, **WALKS,
        target=["size", "y"], features=["weight"],
    ),
    "a value of every token": case(
        walks(), {"kind": "regress_steps"}, {"cell": "gru"}, id="run", target="y", tokens="word",
        scale="minmax",
    ),
    "the last steps of values": case(
        walks(), {"kind": "regress"}, id="run", target="size", features=["y"], max_length=3,
        keep="last",
    ),
    "the first words of texts, the most frequent of them": case(
        TEXTS, {"kind": "classify"}, text="name", level="word", target="language", min_count=2,
        max_vocabulary=2, max_length=2,
    ),
    "texts by character": case(
        TEXTS, {"kind": "classify"}, {"proj_size": 2}, text="name", target="language",
    ),
    "texts by word": case(
        TEXTS, {"kind": "classify"}, {"cell": "rnn", "nonlinearity": "relu"}, text="name",
        level="word", target="language",
    ),
}  # fmt: skip
EVERY = FORECASTS | COMING_CLASSES | SEQUENCES
