"""Random files and experiments on them, for the tests of what must hold for all of them."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.examples import examples
from tuner.data import SeriesRef
from tuner.data.prepared import Prepared, open_test_part, prepare
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.pipeline_steps import POINTWISE

COLUMNS = ["y", "x", "z"]
ROWS = ("inputs", "targets", "truth", "known")
TRANSFORMS = [
    "none", "difference", "log", "box_cox", {"seasonal_difference": 4},
    ["log", {"seasonal_difference": 3}, "difference"], ["box_cox", "difference"],
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file and an experiment on it."""

    frame: pd.DataFrame  # the rows of the file
    keys: dict[str, Any]  # of the block data
    task: dict[str, Any]
    longest: int  # window

    @property
    def step(self) -> pd.Timedelta:
        return pd.Timedelta(self.keys.get("resample", "1h"))

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """The series of each row of the file, and the row of that series that it belongs to.

        The series is -1 where the row is in an incomplete step at an end, which is left out.
        """
        ids = self.frame["s"] if "id" in self.keys else pd.Series("", index=self.frame.index)
        series = pd.factorize(ids)[0]
        if "time" not in self.keys:
            return series, ids.groupby(ids).cumcount().to_numpy()
        steps = self.frame["t"].dt.floor(self.step)
        whole = steps
        if (self.frame["t"] == self.frame["t"].dt.floor("1h")).all():  # else there is no frequency
            held = steps.groupby([series, steps]).transform("size")
            whole = steps.where(held == self.step // pd.Timedelta("1h"))
        first, last = (whole.groupby(series).transform(end) for end in ("min", "max"))
        inside = ((first <= steps) & (steps <= last)).to_numpy()
        return np.where(inside, series, -1), ((steps - first) // self.step).to_numpy()

    def changed(self, chosen: np.ndarray, seed: int) -> Case:
        """The same file, with every value of the chosen rows changed, or its being missing."""
        rng, frame = np.random.default_rng(seed), self.frame.copy()
        values = rng.uniform(500.0, 900.0, (int(chosen.sum()), len(COLUMNS)))
        if self.keys["missing"] != "refuse":
            values[rng.random(values.shape) < 0.2] = np.nan
        frame.loc[chosen, COLUMNS] = values
        return dataclasses.replace(self, frame=frame)

    def experiment(self, folder: Path) -> Experiment:
        self.frame.to_parquet(folder / "series.parquet", index=False)
        space = {"window": {"type": "int", "low": 1, "high": self.longest}}
        data = {"path": str(folder / "series.parquet"), **self.keys}
        return Experiment.model_validate(
            {"name": "leaks", "data": data, "task": self.task, "search_space": space}
        )

    def prepare(self) -> Held:
        """Prepare, and read everything that was written; skip what is refused."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            experiment = self.experiment(folder)
            try:
                searched = prepare(experiment, folder / "search")
                opened = open_test_part(experiment, folder / "test")
            except DataError:
                assume(False)
            return Held(
                searched,
                [Arrays.of(ref) for ref in searched.folds],
                Arrays.of(opened.folds[0]),
                {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("search/*/*")},
            )


@dataclass(frozen=True)
class Arrays(SeriesRef):
    """A reference whose arrays are held here."""

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, ref: Any) -> Arrays:
        names = (*ROWS, "train", "evaluate", "reach", *ref.own_scales * ("offsets", "scales"))
        fields = {f.name: getattr(ref, f.name) for f in dataclasses.fields(SeriesRef)}
        return cls(**fields | {"folder": ""}, arrays={n: np.array(ref.load(n)) for n in names})

    def load(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def said(self) -> dict[str, Any]:
        """Everything about the reference but its arrays of rows."""
        scalers = {n: a.tolist() for n, a in self.arrays.items() if n in ("offsets", "scales")}
        return scalers | {f.name: getattr(self, f.name) for f in dataclasses.fields(SeriesRef)}

    @property
    def starts(self) -> np.ndarray:
        """The first row of each series."""
        return np.concatenate([[0], self.load("reach")[:-1, 1]])

    def rows(self, part: str) -> np.ndarray:
        ranges = [np.arange(a, b) for a, b in self.load(part)]
        return np.concatenate(ranges)

    def scaled(self, name: str) -> np.ndarray:
        """The training rows of the columns that are scaled by themselves: no target's lags."""
        lags = [column for column, _ in self.shape.lag_columns] if name == "inputs" else []
        return np.delete(self.load(name)[self.rows("train")].astype(np.float64), lags, axis=1)

    def places(self, rows: np.ndarray) -> set[tuple[int, int]]:
        """The series of each row, and its number there."""
        series = self.load("reach")[:, 1].searchsorted(rows, side="right")
        return set(zip(series.tolist(), (rows - self.starts[series]).tolist(), strict=True))


@dataclass(frozen=True)
class Held:
    prepared: Prepared
    folds: list[Arrays]
    test: Arrays
    written: dict[str, bytes]


@st.composite
def cases(
    draw: st.DrawFn, *, least_series: int = 1, fits_transform: bool = True, **fixed: Any
) -> Case:
    """Draw a case, of a transform that is fitted to the training part only if that may be."""
    transforms = [t for t in TRANSFORMS if fits_transform or "box_cox" not in str(t)]
    has_time, missing = (
        draw(st.booleans()),
        draw(st.sampled_from(["refuse", "ffill", "interpolate"])),
    )
    n_series = draw(st.integers(least_series, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keys: dict[str, Any] = {
        "target": draw(st.sampled_from(["y", ["y", "x"]])),
        "features": draw(st.sampled_from([["y"], ["x", "y"], ["x"]])),
        "missing": missing,
        "transform": draw(st.sampled_from(transforms)),
        "scale": draw(st.sampled_from(["standard", "minmax", "none"])),
        "lags": draw(st.sampled_from([{}, {"z": [1]}, {"x": [2, 3], "y": [1]}])),
    }
    resampled = has_time and draw(st.booleans())
    if has_time:
        keys |= {
            "time": "t",
            "calendar": draw(st.sampled_from([[], ["hour"], ["hour", "weekday"]])),
        }
    if resampled:
        keys |= {"resample": draw(st.sampled_from(["2h", "3h", "1h"]))}
        keys |= {"aggregate": draw(st.sampled_from(["mean", "sum", "last", "min", "max"]))}
    if missing == "interpolate" and any(f in str(keys["transform"]) for f in POINTWISE):
        keys["transform"] = "none"  # a line may go below 0, which is refused
    if n_series > 1:
        keys["id"] = "s"
        keys["scale_by"] = draw(st.sampled_from(["all", "series"]))
    frames = []
    for i in range(n_series):
        n = draw(st.integers(50, 90)) * (2 if resampled else 1)
        times = pd.Timestamp("2020-01-01 05:00") + pd.to_timedelta(np.arange(n) + 7 * i, unit="h")
        if resampled and rng.random() < 0.7:
            times = times + pd.to_timedelta(rng.integers(0, 59, n), unit="min")
        frame = pd.DataFrame(rng.uniform(1.0, 100.0, (n, 3)), columns=COLUMNS)
        frame.insert(0, "s", f"series {i}")
        frame.insert(0, "t", times)
        if missing != "refuse":
            frame = frame.mask(rng.random(frame.shape) < 0.08).assign(t=frame["t"], s=frame["s"])
            kept = rng.random(n) < 0.95
            kept[:9] = True  # a frequency is to be found
            frame = frame[kept]
        frames.append(frame)
    whole = pd.concat(frames)
    mixed = np.argsort(rng.permutation(np.repeat(np.arange(n_series), [len(f) for f in frames])),
                       kind="stable")  # fmt: skip
    whole = whole.iloc[np.argsort(mixed, kind="stable")].reset_index(drop=True)
    validation: Any = draw(st.one_of(st.integers(5, 12), st.sampled_from([0.1, 0.2])))
    if draw(st.booleans()):
        validation = {
            "folds": draw(st.integers(1, 3)), "size": draw(st.sampled_from([4, 6, 0.1])),
            "gap": draw(st.sampled_from(["auto", 0, 3])),
        }  # fmt: skip
    keys["split"] = {"validation": validation, "test": draw(st.sampled_from([5, 9, 0.15]))}
    window = draw(st.integers(1, 5))
    task = {"window": window, "horizon": draw(st.integers(1, 4)), "season": draw(st.integers(1, 5))}
    return Case(whole, keys | fixed, task, window + draw(st.integers(0, 3)))


@settings(max_examples=examples(30))
@given(case=cases())
def test_the_rows_of_a_case_are_where_it_says(case: Case) -> None:
    held = case.prepare()
    series, row = case.coordinates()
    last = [row[series == i].max() for i in range(len(held.test.starts))]
    assert (held.test.load("reach")[:, 1] - held.test.starts - 1).tolist() == last
    if "resample" not in case.keys:
        rows = held.test.starts[series] + row
        known = case.frame["y"].notna().to_numpy()
        np.testing.assert_array_equal(
            held.test.load("truth")[rows[known], 0], case.frame["y"][known]
        )
