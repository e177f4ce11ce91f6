"""The blocks `data` and `task`: which columns are learned from, and what is predicted."""

from __future__ import annotations

import codecs
import datetime as dt
import re
import zoneinfo
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from tuner.errors import ExperimentError, near_miss
from tuner.pipeline_steps import SEASONAL, Dialect, parse_transform
from tuner.strategies.base import Section, optional

Name = Annotated[str, Field(min_length=1)]

Count = Annotated[int, Field(strict=True)]

_LONGEST_FORMAT = 100  # characters

_Words = Annotated[list[Name], BeforeValidator(lambda value: _as_texts(value))]

_Lines = Annotated[int, Field(strict=True, ge=0, le=100_000)]


def _as_texts(value: Any) -> Any:
    """Return one word, or words and numbers, as a list of texts: -999 is "-999"."""
    words = value if isinstance(value, list | tuple) else [value]
    numbers = [isinstance(w, int | float) and not isinstance(w, bool) for w in words]
    return [str(w) if number else w for w, number in zip(words, numbers, strict=True)]


def _known(holds: Callable[[str], object], rule: str, remedy: str) -> AfterValidator:
    """Return a validator of texts for which `holds` is true and raises nothing."""

    def check(text: str) -> str:
        try:
            known = holds(text)
        except (LookupError, OSError, ValueError, re.error):  # the last for %d twice in a format
            known = False
        if not known:
            raise ExperimentError(rule, got=repr(text[:_LONGEST_FORMAT]), remedy=remedy)
        return text

    return AfterValidator(check)


def _formats(text: str) -> bool:
    if len(text) > _LONGEST_FORMAT:  # strptime makes a regular expression of it
        return False
    day = dt.datetime(2020, 1, 31)
    return text == "excel" or ("%" in text and bool(day.strptime(day.strftime(text), text)))


_Encoding = Annotated[
    str,
    _known(  # hex is a codec too, but not of texts
        lambda name: codecs.lookup(name)._is_text_encoding,
        "no such encoding",
        "write utf-8, cp1252 or gbk",
    ),
]
_Zone = Annotated[
    str,
    _known(zoneinfo.ZoneInfo, "no such time zone", "write a place such as Europe/Berlin, or UTC"),
]
_Separator = Annotated[
    str,
    _known(
        lambda text: text == "whitespace" or (len(text) == 1 and text not in "\"'\r\n"),
        "must be one character or whitespace",
        'write ";"',
    ),
]
_Format = Annotated[str, _known(_formats, "must be a format of dates or excel", 'write "%d.%m.%Y"')]


class Read(Section):
    """How the data file is written; what is left out is detected, and shown by `tuner check`."""

    encoding: _Encoding | None = optional("cp1252")
    """Encoding of the text, by its name in Python; by default UTF-8, or detected."""
    separator: _Separator | None = optional(";")
    """Character between columns, or whitespace."""
    decimal: Literal[".", ","] | None = optional(",")
    """Decimal mark of numbers."""
    thousands: Literal[",", ".", " ", "'", "’", "_", "\u00a0", "\u202f"] | None = optional(".")
    """Mark between groups of three digits."""
    comment: Name | None = optional("#")
    """Prefix of lines that are not read."""
    skip_rows: _Lines | None = optional(2)
    """Lines above the names of the columns, blank ones counted."""
    unit_row: bool | None = optional(True)
    """Whether the line below the names holds units, and is not read."""
    skip_footer: _Lines | None = optional(1)
    """Lines below the rows, such as totals; blank ones are not counted."""
    missing_values: _Words | None = optional(["-", "-999"])
    """Words and numbers that stand for no value; by default the usual ones, such as N/A and -."""
    units: _Words | None = optional(["%", "€"])
    """Units before or behind numbers; they are taken off, and 12 % is 12."""
    date_format: _Format | None = optional("%d.%m.%Y")
    """Format of the time column, as strptime has it; or excel for a spreadsheet's days."""
    timezone: _Zone | None = optional("Europe/Berlin")
    """Time zone of times without an offset; makes the hour certain where clocks go back."""
    time_columns: Annotated[list[Name], Field(min_length=2, max_length=6)] | None = optional(
        ["date", "hour"]
    )
    """Columns that are joined into the time column: a date and an hour, or year, month, day."""
    sort: bool | None = optional(True)
    """Whether rows are sorted by time; by default only where all of them fall."""
    drop_duplicates: bool | None = optional(True)
    """Whether exact copies of rows are dropped; by default where a time column tells rows apart."""

    @model_validator(mode="after")
    def _check(self) -> Read:
        if self.decimal is not None and self.decimal == self.thousands:
            rule, got = "must differ from decimal", f"{self.thousands!r} for both"
            raise ExperimentError(rule, key="thousands", got=got, remedy="remove one")
        return self


class Wide(Section):
    """Columns that are series: they become rows of one column, beside one that names the series."""

    id: Annotated[Name, Field(examples=["store"])]
    """Name of the column that names the series; it is `data.id`."""
    value: Annotated[Name, Field(examples=["sales"])]
    """Name of the column of their values; it is `data.target`."""
    columns: Annotated[
        Name | Annotated[list[Name], Field(min_length=1)], Field(examples=["store_*"])
    ]
    """Columns of the file, each a series: a pattern with `*` or `?`, or a list of names."""


_PARTS = {"moving_average": ("length", 24), "emd": ("components", 3)}
"""By kind of decomposition, the key that it needs and an example of its value."""


class Decomposition(Section):
    """How the targets' columns are split within each window, which knows of no other row."""

    kind: Literal["moving_average", "emd"]
    """A moving average and the remainder, or intrinsic mode functions and the residue."""
    length: Annotated[int, Field(ge=2, le=100_000, strict=True)] | None = optional(24)
    """Of moving_average: rows in the average, at most the window, whose ends are repeated."""
    components: Annotated[int, Field(ge=2, le=16, strict=True)] | None = optional(3)
    """Of emd: number of parts, from the fastest to the residue."""

    @model_validator(mode="after")
    def _check(self) -> Decomposition:
        for kind, (key, example) in _PARTS.items():
            value = getattr(self, key)
            if kind == self.kind and value is None:
                rule, remedy = f"is required by {kind}", f"write `{key}: {example}`, say"
                raise ExperimentError(rule, key=key, remedy=remedy)
            if kind != self.kind and value is not None:
                got = f"{value} with {self.kind}"
                raise ExperimentError(f"applies to {kind}", key=key, got=got, remedy="remove it")
        return self


def _refuse_bare_kind(value: Any) -> Any:
    if isinstance(value, str) and value in _PARTS:
        key, example = _PARTS[value]
        remedy = f"write {{kind: {value}, {key}: {example}}}, say"
        raise ExperimentError(f"{value} needs {key}", got="none", remedy=remedy)
    return value


Decompose = Annotated[
    Annotated[Literal["none"], Tag("(none)")] | Annotated[Decomposition, Tag("(decomposition)")],
    Discriminator(lambda v: "(decomposition)" if isinstance(v, dict | Decomposition) else "(none)"),
    BeforeValidator(_refuse_bare_kind),
]


def canonical_decomposition(value: Any) -> Any:
    """Return the keys of a decomposition in one order, so that equal choices are equal."""
    if not isinstance(value, dict):
        return value
    return {key: value[key] for key in Decomposition.model_fields if key in value} | value


def _parse_lag(value: Any) -> Any:
    """Return a number of rows before; refuse one ahead."""
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        remedy = "name a column whose coming values are known in data.known_future instead"
        raise ExperimentError("a lag looks back, 1 or more rows", got=value, remedy=remedy)
    return value


Lag = Annotated[int, BeforeValidator(_parse_lag), Field(strict=True, ge=1, le=1_000_000)]


def _parse_extent(value: Any) -> Any:
    """Return a share of the rows (0.2), their number (24), or the date of a part's first row."""
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            dt.datetime.fromisoformat(value)  # type: ignore[arg-type]  # refuses what is no text
        except (TypeError, ValueError):
            rule = "must be a fraction, a number of rows or an ISO date"
            raise ExperimentError(rule, remedy="write 0.2, 24 or 1960-01-01") from None
    if isinstance(value, int) and value < 1:
        raise ExperimentError("a number of rows must be at least 1", remedy="write 24, say")
    if isinstance(value, float) and not 0 < value < 1:
        raise ExperimentError("a fraction must be between 0 and 1", remedy="write 0.2, say")
    return value


Extent = Annotated[int | float | str, BeforeValidator(_parse_extent)]

TransformKey = Annotated[
    str | dict[str, int] | list[str | dict[str, int]],
    BeforeValidator(parse_transform),
    Field(examples=[["log", {SEASONAL: 12}]]),
]
"""`none`, one step, or a list of several; a step is a name or `{seasonal_difference: n}`."""

PREPARED = ("transform", "scale", "calendar", "lags", "decompose")
"""The keys of `data` that may be searched."""

# Keys of `data` that need another one, or one of several.
_NEEDED = {
    "min_count": "text tokens", "max_vocabulary": "text tokens", "vocabulary_size": "tokens",
    "level": "text", "keep": "max_length", "aggregate": "resample", "resample": "time",
    "calendar": "time", "scale_by": "id", "static": "id",
}  # fmt: skip

# Keys whose columns stand in no other one, and why.
_NOT_IN: dict[str, tuple[str, tuple[str, ...]]] = {
    "static": ("is the same in every row", ("lags", "known_future")),
    "categories": ("holds no numbers", ("lags",)),
}

_STEP = re.compile(r"\d*\s*[A-Za-z]{1,5}(-[A-Za-z]+)?")


class Folds(Section):
    """Rolling origins: pieces of the rows before the test set are validated on, one after another.

    Each fold trains on the rows before its piece; the score is the mean over the folds.
    """

    folds: Annotated[Count, Field(ge=1, le=100)] = 3
    """Pieces, each after the one before."""
    size: Annotated[int | float, BeforeValidator(_parse_extent)] = 0.1
    """Share of the rows, or number of rows, of one piece."""
    gap: Literal["auto"] | Annotated[Count, Field(ge=0)] = Field("auto", examples=["auto"])
    """Rows between training and validation; auto is one less than the horizon."""


class Split(Section):
    """The parts for training, for the choice of a configuration, and for the final test.

    Series are cut in order of time; independent sequences are split at random, stratified by class.
    Or a column, or a second file, gives the parts.
    """

    validation: Annotated[
        Annotated[Extent, Tag("(extent)")] | Annotated[Folds, Tag("(folds)")],
        Discriminator(lambda v: "(folds)" if isinstance(v, dict | Folds) else "(extent)"),
    ] = Field(0.2, examples=[0.2])
    """Share of the rows or sequences, their number, the date at which the part begins, or folds."""
    test: Extent = 0.15
    """The same of the test set, which comes last; it has no folds."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Seed of the random split of independent sequences."""
    column: Name | None = optional("part")
    """Column with train, validation or test in every row, in place of the shares."""
    test_file: Name | None = optional("test.csv")
    """File whose rows are the test set, relative to the experiment file."""
    group: Name | None = optional("patient")
    """Column of groups of independent sequences, such as patients; a group stays in one part."""

    @model_validator(mode="after")
    def _check(self) -> Split:
        excluded = [
            *[("column", key) for key in ("test_file", "group", "validation", "test", "seed")],
            ("test_file", "test"),
        ]
        for key, other in excluded:
            name, value = getattr(self, key), getattr(self, other)
            if name is not None and value is not None and other in self.model_fields_set:
                rule, got = "gives the parts itself", f"{other} {value} beside {key} {name!r}"
                raise ExperimentError(rule, key=key, got=got, remedy="remove one of them")
        return self

    def key_of(self, part: str) -> str:
        """Return the key that gives a part: training, validation or test."""
        if self.column is not None:
            return "data.split.column"
        if part == "test" and self.test_file is not None:
            return "data.split.test_file"
        return f"data.split.{part}"

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping that is read as this split, without keys that another one excludes."""
        excluded = set() if self.test_file is None else {"test"}
        if self.column is not None:
            excluded = {"validation", "test", "seed"}
        return self.model_dump(mode="json", exclude_none=True, exclude=excluded)


class Data(Section):
    """Where the data is and how it is prepared."""

    path: Annotated[str, Field(min_length=1, examples=["data/series.csv"])]
    """CSV, Excel, JSON lines or Parquet file, relative to the experiment file."""
    read: Read = Read()
    """How the file is written, where it is no plain CSV; what is left out is detected."""
    time: Name | None = optional("date")
    """Column of times; order, gaps and duplicates are checked where it is given."""
    id: Name | None = optional("store")
    """Column of the series or sequence that a row belongs to."""
    target: Annotated[Name | Annotated[list[Name], Field(min_length=1)], Field(examples=["sales"])]
    """Column to predict, or several."""
    wide: Wide | None = optional({"id": "store", "value": "sales", "columns": "store_*"})
    """Columns that are series: they become rows of one column, which is the target."""
    features: Annotated[list[Name], Field(min_length=1)] | None = optional(["sales", "price"])
    """Columns that the model sees; by default every numeric one but a sequence's label."""
    text: Name | None = optional("name")
    """Column of texts, each row a sequence; seen in place of features."""
    level: Literal["character", "word"] = "character"
    """What a text is cut into."""
    tokens: Name | None = optional("word")
    """Column of tokens, one a row of a sequence; seen in place of features."""
    vocabulary_size: Annotated[Count, Field(ge=1, le=10_000_000)] | None = optional(1000)
    """Tokens are numbers below it; by default the vocabulary is the tokens of the training set."""
    min_count: Annotated[Count, Field(ge=1, le=1_000_000)] = 1
    """Times that a token must occur in the training set; a rarer one is unknown."""
    max_vocabulary: Annotated[Count, Field(ge=1, le=10_000_000)] | None = optional(20000)
    """Tokens that are known at most, the most frequent ones; all by default."""
    max_length: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(200)
    """Steps that are read of a sequence at most; all by default."""
    keep: Literal["first", "last"] = "first"
    """Which steps of a sequence that is longer than max_length."""
    missing: Literal["refuse", "interpolate", "ffill", "skip"] = "refuse"
    """Missing values and rows: refused, interpolated, the last value; or their windows left out."""
    resample: Name | None = optional("1h")
    """Frequency to which rows are resampled, such as 15min, 1h, 1D; needs a time column."""
    aggregate: Literal["mean", "sum", "last", "min", "max"] = "mean"
    """How resample combines the rows of one step."""
    calendar: list[Literal["hour", "weekday", "month"]] = Field(
        default_factory=list, examples=[["hour", "weekday"]]
    )
    """Features from the time: sine and cosine of its place in the day, the week, the year."""
    lags: dict[Name, Annotated[list[Lag], Field(min_length=1)]] = Field(
        default_factory=dict, examples=[{"price": [1, 24]}]
    )
    """Features from columns: their values this many rows before."""
    decompose: Decompose = Field("none", examples=[{"kind": "moving_average", "length": 24}])
    """How the columns of targets are decomposed within each window."""
    known_future: list[Name] | None = optional(["holiday", "price"])
    """Columns whose future values are known; with the key, even `[]`, the calendar is known too."""
    categories: list[Name] = Field(default_factory=list, examples=[["weather", "store"]])
    """Columns of texts or codes that are embedded; data.id among them embeds each series."""
    weight: Name | None = optional("importance")
    """Column of the weights of rows in loss and metric, 0 or more; 0 leaves the targets out."""
    static: list[Name] = Field(default_factory=list, examples=[["store_type", "size"]])
    """Columns that are the same in all rows of a series: numbers, or categories."""
    split: Split = Split()
    transform: TransformKey = "none"
    """Transform of the targets before scaling, one step or a list; inverted before metrics."""
    scale: Literal["standard", "minmax", "none"] = "standard"
    """How columns are scaled; fitted on the training set."""
    scale_by: Literal["all", "series"] = "all"
    """Whether all series have one scale, or each its own, fitted on its training rows."""

    @property
    def targets(self) -> list[str]:
        """The target columns as a list."""
        return [self.target] if isinstance(self.target, str) else list(self.target)

    @model_validator(mode="before")
    @classmethod
    def _name_wide(cls, raw: Any) -> Any:
        """Add id and target of `wide`, where they are not given."""
        wide = raw.get("wide") if isinstance(raw, dict) else None
        if not isinstance(wide, dict | Wide):
            return raw
        names, given = dict(wide), dict(raw)
        for key, of_wide in (("id", "id"), ("target", "value")):
            name, own = names.get(of_wide), raw.get(key)
            if not isinstance(name, str) or not name:
                continue  # the block itself is refused
            given[key] = name
            if own not in (None, name, [name]):
                rule = f"must be data.wide.{of_wide}, {name!r}"
                remedy = f"remove {key}, or write the same name twice"
                raise ExperimentError(rule, key=key, got=repr(own), remedy=remedy)
        return given

    @property
    def dialect(self) -> Dialect:
        """How the file is written, as far as `read` declares it."""
        return Dialect.of(self.read.model_dump())

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.read.time_columns is not None and self.time is None:
            rule, got = "needs data.time as its name", f"{self.read.time_columns} without"
            raise ExperimentError(rule, key="read.time_columns", got=got, remedy="set it as well")
        kinds = [key for key in ("features", "text", "tokens") if getattr(self, key) is not None]
        if len(kinds) > 1:
            rule = f"a model sees {kinds[0]} or {kinds[1]}"
            raise ExperimentError(rule, key=kinds[1], got="both", remedy="remove one")
        for key, needed in _NEEDED.items():
            value, others = getattr(self, key), [f"data.{other}" for other in needed.split()]
            lacks = not any(getattr(self, other) for other in needed.split())
            if lacks and value and value != type(self).model_fields[key].get_default():
                rule, got = f"needs {' or '.join(others)}", f"{value!r} without"
                remedy = f"set {others[0]} as well, or remove it"
                raise ExperimentError(rule, key=key, got=got, remedy=remedy)
        self._check_columns()
        if self.resample is not None and not _STEP.fullmatch(self.resample):
            got, remedy = repr(self.resample), "write 15min, 1h or 1D, say"
            raise ExperimentError("must be a frequency", key="resample", got=got, remedy=remedy)
        return self

    def _check_columns(self) -> None:
        """Check the keys that name columns: each names one once, and none in another role."""
        for key in ("target", "features", "known_future", "static", "categories"):
            columns = self.targets if key == "target" else getattr(self, key) or []
            counts = Counter(columns)
            for column in columns:
                twice = counts[column] > 1
                broken = ("names must differ", f"{column!r} twice", "remove one") if twice else None
                if broken := broken or self._wrong_role(key, column):
                    rule, got, remedy = broken
                    raise ExperimentError(rule, key=key, got=got, remedy=remedy)

    def _wrong_role(self, key: str, column: str) -> tuple[str, str, str] | None:
        """Return rule, value and remedy where a column has a role that excludes the key's."""
        got, in_features = repr(column), key not in ("target", "features")
        if in_features and column in self.targets:
            return "must not name what is predicted", f"the target {got}", "remove it"
        if column == self.time:
            remedy = "write data.calendar" if key == "categories" else "remove it"
            return "must not name the time column", got, remedy
        if column == self.id:
            remedy = "write it in data.categories instead" if key == "static" else "remove it"
            return None if key == "categories" else ("must not name the id column", got, remedy)
        if in_features and self.features is not None and column not in self.features:
            own_id = [self.id] if key == "categories" and self.id else []
            near = near_miss(column, [*self.features, *own_id])
            meant = "" if near is None else f" ({near!r}?)"
            return f"must be among data.features{meant}", got, "add it there"
        rule, others = _NOT_IN.get(key, ("", ()))
        for other in others:
            if column in (getattr(self, other) or []):
                return rule, f"{got} in data.{other} too", "remove it there"
        return None


_FORECAST_KEYS = ("window", "horizon", "season", "quantiles", "intervals", "step_weights")


class Task(Section):
    """What is predicted from what."""

    kind: Literal["forecast", "regress", "classify", "label", "regress_steps", "translate"] = (
        "forecast"
    )
    """Future values of a series; a number or class of a sequence, or of its every step; a text."""
    window: Annotated[Count, Field(ge=1, le=100_000)] = 12
    """Past rows that a forecast sees; written with classify, it is of a series' coming row."""
    horizon: Annotated[Count, Field(ge=1, le=10_000)] = 1
    """Rows ahead that are forecast."""
    season: Annotated[Count, Field(ge=1)] | None = optional(12)
    """Rows in a season, for the seasonal-naive baseline; found from the time column by default."""
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, examples=[[0.1, 0.5, 0.9]]
    )
    """Quantiles that are forecast in place of the value, rising; 0.5 is the point forecast."""
    intervals: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, examples=[[0.8, 0.95]]
    )
    """Coverage of the prediction intervals around the forecast, rising; for any model."""
    step_weights: list[Annotated[float, Field(ge=0, lt=1e30)]] | None = optional([1, 1, 0.5])
    """Weight of each step of the horizon in loss and metric; equal by default."""

    @property
    def each_step(self) -> bool:
        """Whether every step of a sequence has a target, not the sequence."""
        return self.kind in ("label", "regress_steps")

    @property
    def of_series(self) -> bool:
        """Whether windows of series are read, in order of time, and not independent sequences."""
        return self.kind == "forecast" or self.of_coming_class

    @property
    def of_coming_class(self) -> bool:
        """Whether the class of a series' next row is predicted: classify with a window."""
        return self.kind == "classify" and "window" in self.model_fields_set

    @property
    def unused_keys(self) -> list[str]:
        """The keys that only forecasts have, where it is no forecast."""
        if self.kind == "forecast":
            return []
        return [key for key in _FORECAST_KEYS if key != "window" or not self.of_coming_class]

    @model_validator(mode="after")
    def _check(self) -> Task:
        default = type(self).model_construct()
        for key in self.unused_keys:
            if (value := getattr(self, key)) != getattr(default, key):
                got = f"{value!r} with kind {self.kind}"
                raise ExperimentError(
                    "applies to forecasts only", key=key, got=got, remedy="remove it"
                )
        for key, values in (("quantiles", self.quantiles), ("intervals", self.intervals)):
            if any(a >= b for a, b in pairwise(values)):
                raise ExperimentError("must rise", key=key, got=values, remedy="sort them")
        if self.quantiles and 0.5 not in self.quantiles:
            rule = "need 0.5, which is the point forecast"
            raise ExperimentError(rule, key="quantiles", got=self.quantiles, remedy="add it")
        if (weights := self.step_weights) is None:
            return self
        if len(weights) != self.horizon:
            rule = f"must be one number for each step of horizon, which is {self.horizon}"
            other = f"horizon: {len(weights)}" if weights else "remove it"
            remedy = f"write {self.horizon} of them, or {other}"
            raise ExperimentError(rule, key="step_weights", got=len(weights), remedy=remedy)
        if not any(weights):
            rule, remedy = "must not all be 0", "write 1 where a step counts"
            raise ExperimentError(rule, key="step_weights", got=weights, remedy=remedy)
        return self
