"""Real series and sequences, as plain CSV files: what `benchmarks/quality.py` searches.

Nothing is downloaded. A set is read from the file that a package on PyPI ships (`statsmodels`,
`sktime`, `arch`, `vega_datasets`; only their files are read, nothing is imported, so
`pip install --no-deps` is enough), from `experiments/data/`, or from ETTh1.csv, which the caller
has.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["SETS", "MissingError", "RealSet", "Sources", "read_ts", "write_sets"]

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_ETTH1_ROWS = 14_400
_ETTH1_TRAINING = 8_640
_ETTH1_PART = 2_880


class MissingError(Exception):
    """A file that a set is read from is not here; the text says what to do."""


@dataclass(frozen=True)
class Sources:
    """Where files lie.

    packages: a folder in which packages are looked for before the environment's own.
    etth1: ETTh1.csv.
    """

    packages: Path | None = None
    etth1: Path | None = None

    def file_of(self, package: str, inside: str) -> Path:
        """Return a file of a package.

        Raises:
            MissingError: the package is not installed, or its release lacks the file.
        """
        if self.packages is not None and (self.packages / package / inside).exists():
            return self.packages / package / inside
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(folder) / inside).exists():
                return Path(folder) / inside
        raise MissingError(f"no {package}/{inside} here; pip install --no-deps {package}")

    def etth1_rows(self) -> pd.DataFrame:
        """Return the first 14,400 hours of ETTh1: twelve months, four and four.

        Raises:
            MissingError: nobody said where the file is.
        """
        if self.etth1 is None or not self.etth1.exists():
            raise MissingError("no ETTh1.csv here; say where it is with --etth1")
        return pd.read_csv(self.etth1).head(_ETTH1_ROWS)


@dataclass(frozen=True)
class RealSet:
    """A data set, and what is asked of it."""

    about: str
    read: Callable[[Sources], pd.DataFrame]
    target: str
    task: str = "forecast"
    time: str | None = None
    id: str | None = None
    features: tuple[str, ...] = ()  # beside the target
    horizon: int = 1
    season: int | None = None  # rows; for the baselines of others
    validation: float | int = 0.2
    test: float | int = 0.15
    shipped: str | None = None  # an experiment of ours that is run as it is, and not init's
    rows_as: str | None = None  # another set with the same rows and question
    init: tuple[str, ...] = field(default=())  # arguments of tuner init beside those that follow

    def file(self, name: str) -> str:
        """Return the file's name in the scratch folder."""
        return f"{name}.csv"

    def rows_of(self, n_rows: int) -> tuple[int, int]:
        """Return the rows of the validation and the test part, of `n_rows` times.

        Rounded as `tuner.data.splits` rounds: a half is a half, and goes up.
        """
        validation, test = (
            e
            if isinstance(e, int)
            else int((Decimal(str(e)) * n_rows).to_integral_value(ROUND_HALF_UP))
            for e in (self.validation, self.test)
        )
        return validation, test

    def facts(self, name: str, frame: pd.DataFrame) -> dict[str, Any]:
        """Return what another program must know of the set, as JSON."""
        facts = asdict(self)
        for key in ("read", "init", "shipped", "validation", "test"):
            del facts[key]
        facts |= {"file": self.file(name), "features": [self.target, *self.features]}
        if self.task == "forecast":
            n_times = frame[self.time].nunique() if self.time else len(frame)
            n_series = frame[self.id].nunique() if self.id else 1
            validation, test = self.rows_of(n_times)
            facts |= {"validation_rows": validation, "test_rows": test}
            facts["test_windows"] = (test - self.horizon + 1) * n_series
        return facts


def write_sets(folder: Path, names: Sequence[str], sources: Sources) -> dict[str, dict[str, Any]]:
    """Write the sets' files, and `sets.json`, which tells of them.

    Args:
        folder: is made; what `sets.json` knows already stays.
        names: of `SETS`.
        sources: where to read.

    Returns:
        The facts of each set.

    Raises:
        MissingError: a set's file is not here. Those before it are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "sets.json"
    facts = json.loads(known.read_text()) if known.exists() else {}
    for name in names:
        wanted = SETS[name]
        frame = wanted.read(sources)
        frame.to_csv(folder / wanted.file(name), index=False)
        facts[name] = wanted.facts(name, frame)
        known.write_text(json.dumps(facts, indent=1))
    return {name: facts[name] for name in names}


def read_ts(path: Path) -> list[tuple[list[list[float]], str]]:
    """Read a .ts file of UEA: of each case its dimensions, and the class or value after them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().lower() == "@data")
    cases = []
    for line in lines[begin + 1 :]:
        if line.strip():
            *dimensions, label = line.strip().split(":")
            cases.append(([[float(v) for v in d.split(",")] for d in dimensions], label))
    return cases


def _sequences(name: str, target: str, columns: Sequence[str]) -> Callable[[Sources], pd.DataFrame]:
    """Return the reader of a set of sequences: its two files, one after the other."""

    def read(sources: Sources) -> pd.DataFrame:
        files = [f"datasets/data/{name}/{name}_{part}.ts" for part in ("TRAIN", "TEST")]
        cases = [case for file in files for case in read_ts(sources.file_of("sktime", file))]
        frames = []
        for i, (dimensions, label) in enumerate(cases):
            frame = pd.DataFrame(dict(zip(columns, dimensions, strict=True)))
            frame.insert(0, "sequence", i)
            frames.append(frame.assign(**{target: label}))
        return pd.concat(frames, ignore_index=True)

    return read


def _shipped(file: str) -> Callable[[Sources], pd.DataFrame]:
    return lambda sources: pd.read_csv(EXPERIMENTS / "data" / file)


def _statsmodels(sources: Sources, name: str) -> pd.DataFrame:
    return pd.read_csv(sources.file_of("statsmodels", f"datasets/{name}/{name}.csv"))


def _co2(sources: Sources) -> pd.DataFrame:
    """Monthly means of the weeks that were measured; five months without any are carried on."""
    frame = _statsmodels(sources, "co2")
    weeks = pd.to_datetime(frame["date"].astype(str), format="%Y%m%d")
    months = frame.groupby(weeks.dt.strftime("%Y-%m"))["co2"].mean().ffill()
    return months.rename_axis("month").reset_index()


def _elnino(sources: Sources) -> pd.DataFrame:
    frame = _statsmodels(sources, "elnino")
    months = [f"{year}-{month:02d}" for year in frame["YEAR"] for month in range(1, 13)]
    values = frame[list(_MONTHS)].to_numpy().ravel()
    return pd.DataFrame({"month": months, "temperature": values})


def _macrodata(column: str, name: str) -> Callable[[Sources], pd.DataFrame]:
    def read(sources: Sources) -> pd.DataFrame:
        frame = _statsmodels(sources, "macrodata")
        return pd.DataFrame({"quarter": _quarters(frame), name: frame[column]})

    return read


def _quarters(frame: pd.DataFrame) -> list[str]:
    pairs = zip(frame["year"].astype(int), frame["quarter"].astype(int), strict=True)
    return [f"{year}-{3 * quarter - 2:02d}" for year, quarter in pairs]


def _nile(sources: Sources) -> pd.DataFrame:
    return _statsmodels(sources, "nile")


def _lynx(sources: Sources) -> pd.DataFrame:
    frame = pd.read_csv(sources.file_of("sktime", "datasets/data/Lynx/Lynx.csv"))
    return frame.set_axis(["year", "lynx"], axis=1)


def _seatbelts(sources: Sources) -> pd.DataFrame:
    frame = pd.read_csv(sources.file_of("sktime", "datasets/data/seatbelts/seatbelts.csv"))
    month = frame.iloc[:, 0].str[:7]
    return pd.DataFrame({"month": month, "killed_or_injured": frame["KSI"]})


def _uschange(sources: Sources) -> pd.DataFrame:
    frame = pd.read_csv(sources.file_of("sktime", "datasets/data/Uschange/Uschange.csv"))
    year, quarter = frame["Quarter"].str[:4], frame["Quarter"].str[-1]
    frame = frame.assign(year=year, quarter=quarter)
    columns = ["Consumption", "Income", "Production", "Savings", "Unemployment"]
    return pd.DataFrame({"quarter": _quarters(frame)}).join(
        frame[columns].rename(columns=str.lower)
    )


def _sp500(sources: Sources) -> pd.DataFrame:
    frame = pd.read_csv(sources.file_of("arch", "data/sp500/sp500.csv.gz"))
    days = pd.to_datetime(frame["Date"], format="%m/%d/%Y").dt.strftime("%Y-%m-%d")
    return pd.DataFrame({"day": days, "close": frame["Close"]})


def _stocks(sources: Sources) -> pd.DataFrame:
    """Monthly prices; Google's begin in 2004."""
    frame = pd.read_csv(sources.file_of("vega_datasets", "_data/stocks.csv"))
    months = pd.to_datetime(frame["date"], format="%b %d %Y").dt.strftime("%Y-%m")
    return frame.assign(date=months).rename(columns={"date": "month"})


def _seattle(sources: Sources) -> pd.DataFrame:
    frame = pd.read_csv(sources.file_of("vega_datasets", "_data/seattle-weather.csv"))
    frame["date"] = frame["date"].str.replace("/", "-")
    return frame[["date", "temp_max", "temp_min", "precipitation", "wind"]]


def _etth1(column: str) -> Callable[[Sources], pd.DataFrame]:
    return lambda sources: sources.etth1_rows()[["date", column]]


def _etth1_seven(sources: Sources) -> pd.DataFrame:
    """The columns below one another, each in units of its training part's deviation."""
    frame = sources.etth1_rows()
    values = frame.set_index("date")
    training = values.head(_ETTH1_TRAINING)
    scaled = (values - training.mean()) / training.std(ddof=0)
    long = scaled.reset_index().melt("date", var_name="column", value_name="value")
    return long[["column", "date", "value"]].round(6)


def _hours(column: str, horizon: int, about: str) -> RealSet:
    return RealSet(
        f"ETTh1, {about}, {horizon} hours ahead",
        _etth1(column),
        column,
        time="date",
        horizon=horizon,
        season=24,
        validation=_ETTH1_PART,
        test=_ETTH1_PART,
    )


SETS: dict[str, RealSet] = {
    "air_passengers": RealSet(
        "airline passengers, as shipped",
        _shipped("air_passengers.csv"),
        "passengers",
        time="month",
        season=12,
        shipped="air_passengers.yaml",
    ),
    "sunspots": RealSet(
        "sunspots of a year, as shipped",
        _shipped("sunspots.csv"),
        "sunspots",
        time="year",
        season=11,
        shipped="sunspots.yaml",
    ),
    "air_passengers_init": RealSet(
        "airline passengers",
        _shipped("air_passengers.csv"),
        "passengers",
        time="month",
        season=12,
        rows_as="air_passengers",
    ),
    "sunspots_init": RealSet(
        "sunspots of a year",
        _shipped("sunspots.csv"),
        "sunspots",
        time="year",
        season=11,
        rows_as="sunspots",
    ),
    "co2": RealSet("CO2 at Mauna Loa, months", _co2, "co2", time="month", season=12),
    "elnino": RealSet(
        "sea temperature (El Niño), 6 months ahead",
        _elnino,
        "temperature",
        time="month",
        horizon=6,
        season=12,
    ),
    "gdp": RealSet(
        "gross domestic product of the USA, quarters",
        _macrodata("realgdp", "gdp"),
        "gdp",
        time="quarter",
        season=4,
    ),
    "unemployment": RealSet(
        "unemployment in the USA, quarters",
        _macrodata("unemp", "unemployment"),
        "unemployment",
        time="quarter",
        season=4,
    ),
    "uschange": RealSet(
        "change of consumption in the USA, quarters, five columns",
        _uschange,
        "consumption",
        time="quarter",
        features=("income", "production", "savings", "unemployment"),
        season=4,
    ),
    "seatbelts": RealSet(
        "killed or injured on British roads, months",
        _seatbelts,
        "killed_or_injured",
        time="month",
        season=12,
    ),
    "nile": RealSet("flow of the Nile, years", _nile, "volume", time="year"),
    "lynx": RealSet("trapped lynx, years", _lynx, "lynx", time="year", season=10),
    "seattle": RealSet(
        "highest temperature in Seattle, 7 days ahead, four columns",
        _seattle,
        "temp_max",
        time="date",
        features=("temp_min", "precipitation", "wind"),
        horizon=7,
        season=7,
    ),
    "sp500": RealSet("closes of the S&P 500, days", _sp500, "close", time="day", season=5),
    "stocks": RealSet(
        "five stocks as one panel, months",
        _stocks,
        "price",
        time="month",
        id="symbol",
        season=12,
    ),
    "etth1_hufl": _hours("HUFL", 24, "high useful load"),
    "etth1_ot": _hours("OT", 96, "oil temperature"),
    "etth1_ot_336": _hours("OT", 336, "oil temperature"),
    "etth1_seven": RealSet(
        "ETTh1, its seven columns as seven series, scaled, 96 hours ahead",
        _etth1_seven,
        "value",
        time="date",
        id="column",
        horizon=96,
        season=24,
        validation=_ETTH1_PART,
        test=_ETTH1_PART,
    ),
    "japanese_vowels": RealSet(
        "Japanese vowels: which of nine speakers",
        _sequences("JapaneseVowels", "speaker", [f"c{i}" for i in range(1, 13)]),
        "speaker",
        task="classify",
        id="sequence",
    ),
    "arrow_head": RealSet(
        "ArrowHead: which of three kinds",
        _sequences("ArrowHead", "kind", ["outline"]),
        "kind",
        task="classify",
        id="sequence",
    ),
    "tecator": RealSet(
        "Tecator: the fat in meat, by its spectrum",
        _sequences("Tecator", "fat", ["absorbance"]),
        "fat",
        task="regress",
        id="sequence",
    ),
}
