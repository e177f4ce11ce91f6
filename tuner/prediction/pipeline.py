"""The contents of `pipeline.json`: columns, their preparation and the outputs of a model."""

from __future__ import annotations

import codecs
import itertools
import re
import reprlib
import warnings
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.data.metrics import Intervals
from tuner.data.preprocessing import LAMBDAS, NO_TRANSFORM, Scaler, Transform
from tuner.data.vocabulary import Vocabulary
from tuner.errors import ModelError, show_path
from tuner.pipeline_steps import Dialect, Step, is_transform
from tuner.tables.frequencies import offset_of
from tuner.tables.table import WideColumns, columns_of_series

_MOST = 2**31 - 1  # rows, steps, tokens; numpy counts further
_LONGEST_TEXT, _WIDEST_BEAM = 1_000_000, 64  # tokens, and texts that are kept
_LARGEST = float(np.finfo(np.float32).max)
_Check = Callable[[Any], bool]
_HALF = re.compile("[\ud800-\udfff]")  # of a character in UTF-16: JSON may hold it, UTF-8 not


@dataclass(frozen=True)
class Columns:
    """The columns that a model reads, as a `tuner.data.preprocessing.Preparation`."""

    time: str | None
    id: str | None
    targets: list[str]  # of a forecast; a sequence needs no label
    features: list[str] | None
    missing: str
    text: str | None = None
    level: str = "character"
    tokens: str | None = None
    vocabulary_size: int | None = None
    max_length: int | None = None
    keep: str = "first"
    resample: str | None = None
    aggregate: str = "mean"
    calendar: list[str] = field(default_factory=list)
    lags: dict[str, list[int]] = field(default_factory=dict)
    known_future: list[str] | None = None
    categories: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    weight: None = None  # of targets in training: there are none to come
    transform: Step | list[Step] = "none"
    wide: WideColumns | None = None
    dialect: Dialect = field(default_factory=Dialect)

    @property
    def numbers(self) -> list[str]:
        """The numeric columns, of a wide file after reshaping."""
        return list(dict.fromkeys([*(self.features or []), *self.targets, *self.lags]))

    @property
    def names(self) -> list[str]:
        """The names of all columns that are read."""
        others = (self.id, self.time, self.text, self.tokens)
        return [*(name for name in others if name is not None), *self.numbers]

    def names_in(self, known: list[str]) -> list[str]:
        """Return the columns that are read of those in a file."""
        if self.wide is None:
            return self.names
        made = (self.wide.id, self.wide.value)
        return [
            *(name for name in self.names if name not in made),
            *columns_of_series(self.wide, known),
        ]


@dataclass(frozen=True, eq=False)
class OwnScalers:
    """The scalers of the series in training, by their names."""

    inputs: dict[str, Scaler]
    outputs: dict[str, Scaler]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The way from rows to a model's inputs, and from its outputs to predictions."""

    task: str  # of `tuner.data.reference.Shape`
    columns: Columns
    targets: tuple[str, ...]
    width: int  # the largest number of values of a step, in the input or a layer
    classes: tuple[str, ...] = ()
    class_columns: tuple[str, ...] = ()  # inputs: the classes of earlier rows of a series
    vocabulary: Vocabulary | None = None  # if the steps are tokens
    inputs: Scaler | None = None  # if the steps are numbers
    outputs: Scaler | None = None  # if values are predicted
    transform: Transform = NO_TRANSFORM  # of a forecast's targets
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)  # in their numbers' order
    own: OwnScalers | None = None  # if each series has its own
    scale: str = "none"  # the kind of scaling of other series
    window: int = 1  # rows that a forecast reads
    horizon: int = 1
    modes: int = 0  # intrinsic mode functions of each target in a window, further inputs
    quantiles: tuple[float, ...] = ()
    intervals: Intervals | None = None  # around a forecast
    frequency: str | None = None  # of the rows of a forecast in training
    day_first: bool | None = None  # in dates like 01/02/2020; None if there were none
    holidays: bool | None = None  # whether open days without a row are; None: inferred
    target: Vocabulary | None = None  # of translations
    longest: int = 0  # tokens of a translation, at most
    beam: int = 1

    @property
    def of_series(self) -> bool:
        """Whether the model reads windows of series, not whole sequences."""
        return self.task in ("forecast", "coming_class")

    @property
    def each_step(self) -> bool:
        """Whether every step of a sequence has an output, not the whole sequence."""
        return self.task in ("label", "regress_steps")

    @property
    def output_order(self) -> list[int]:
        """The indices of the quantiles, the median first; of a value its only index."""
        if not self.quantiles:
            return [0]
        median = self.quantiles.index(0.5)
        return [median, *(i for i in range(len(self.quantiles)) if i != median)]

    @classmethod
    def of(cls, record: dict[str, Any], path: Path) -> Pipeline:
        """Return the pipeline of a record that was read from `path`.

        Raises:
            ModelError: a key is missing or has an invalid value.
        """
        get = _Getter(record, path)
        of_series = ("forecast", "coming_class")
        of_sequences = ("regress", "classify", "label", "regress_steps")
        task = get("task", _one_of(*of_series, *of_sequences, "translate"))
        if task == "translate":
            return _pairs(get)
        return _series(get, task) if task in of_series else _sequences(get, task)


def _series(get: _Getter, task: str) -> Pipeline:
    targets, window = get("targets", _names), get("window", _count)
    categories = get.optional("categories", _categories, {})
    columns = Columns(
        time=get("time", _or_none(_name)),
        id=get("id", _or_none(_name)),
        targets=targets,
        features=get("features", _names),
        missing=get("missing", _one_of("refuse", "ffill", "interpolate", "skip")),
        resample=get("resample", _or_none(_frequency)),
        aggregate=get("aggregate", _one_of("mean", "sum", "last", "min", "max")),
        calendar=get("calendar", _all_in("hour", "weekday", "month")),
        lags=get("lags", _lags),
        known_future=get.optional("known_future", _or_none(_names_or_empty), None),
        categories=list(categories),
        static=get.optional("static", _names_or_empty, []),
        transform=get("transform", is_transform),
        wide=_wide(get),
        dialect=get.dialect("read"),
    )
    transform = Transform.of(columns.transform)
    n_lambdas = len(targets) if transform.pointwise == "box_cox" else 0
    lambdas = get("lambdas", lambda v: _powers(v) and len(v) == n_lambdas)
    by_series = get("scale_by", _one_of("all", "series")) == "series"
    get.refuse_if(by_series and columns.id is None, "scale_by")
    inputs = _input_names(columns)
    _check_columns(get, columns, inputs)
    horizon = get("horizon", _count)
    own = _own_scalers(get, by_series, len(inputs), len(targets))
    classes, class_columns = _classes_of_series(get, task, columns, horizon)
    return Pipeline(
        task=task,
        classes=classes,
        class_columns=class_columns,
        columns=columns,
        targets=tuple(targets),
        width=get("width", _count),
        inputs=get.scaler("inputs", len(inputs)),
        outputs=get.scaler("outputs", len(targets)),
        transform=replace(transform, lambdas=tuple(map(float, lambdas))),
        categories={name: tuple(known) for name, known in categories.items()},
        own=own,
        scale=get("scale", _one_of("standard", "minmax", "none")),
        window=window,
        horizon=horizon,
        modes=_modes(get, columns),
        quantiles=tuple(get("quantiles", _quantiles)),
        intervals=get.intervals(
            "intervals", horizon, len(targets), None if own is None else len(own.outputs)
        ),
        frequency=get("frequency", _or_none(_frequency)),
        day_first=get("day_first", _or_none(_bool)),
        holidays=get.optional("holidays", _or_none(_bool), None),
    )


def _check_columns(get: _Getter, columns: Columns, inputs: list[str]) -> None:
    """Refuse columns of series that contradict each other, and repeated names of inputs."""
    features, known = set(columns.features or []), set(columns.known_future or [])
    past = {*columns.targets, *columns.lags}
    get.refuse_if(columns.time is None and (columns.resample or columns.calendar), "time")
    get.refuse_if(len(set(inputs)) < len(inputs), "features")
    get.refuse_if(not known <= features - set(columns.targets), "known_future")
    get.refuse_if(not set(columns.static) <= features - past - known, "static")
    get.refuse_if(columns.static and columns.id is None, "id")
    get.refuse_if(not set(columns.categories) <= {*features, columns.id} - past, "categories")


def _classes_of_series(
    get: _Getter, task: str, columns: Columns, horizon: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes of a series' rows, and the columns of past classes; () for no classes."""
    if task == "forecast":
        return (), ()
    classes = get("classes", _names)
    read = get("class_columns", lambda v: v == [] or (_names(v) and len(v) == len(classes)))
    get.refuse_if(not set(read) <= set(columns.features or []), "class_columns")
    for key, value, only in (
        ("targets", columns.targets, columns.targets[:1]),
        ("horizon", horizon, 1),
        ("transform", columns.transform, "none"),
        ("quantiles", get("quantiles", _quantiles), []),
        ("missing", columns.missing, "refuse" if columns.missing == "refuse" else "ffill"),
    ):
        get.refuse_if(value != only, key)
    return tuple(classes), tuple(read)


def _wide(get: _Getter) -> WideColumns | None:
    """Return the columns that are series; older models have none."""
    record = get.optional("wide", _or_none(_mapping), None)
    if record is None:
        return None
    columns = record.get("columns")
    named = all(_text(record.get(key)) for key in ("id", "value"))
    get.refuse_if(not named or not (_text(columns) or _names(columns)), "wide")
    return WideColumns(record["id"], record["value"], columns)


def _modes(get: _Getter, columns: Columns) -> int:
    """Return the number of modes of each target; older models have none."""
    decompose = get.optional("decompose", _decomposes, "none")
    if decompose == "none" or decompose["kind"] != "emd":
        return 0
    get.refuse_if(not set(columns.targets) <= set(columns.features or []), "features")
    return int(decompose["components"]) - 1


def _decomposes(value: Any) -> bool:
    """Whether the value is none, or a decomposition of windows."""
    if not isinstance(value, dict):
        return bool(value == "none")
    key = {"moving_average": "length", "emd": "components"}.get(str(value.get("kind")))
    return key is not None and _count(value.get(key)) and value[key] >= 2


def _own_scalers(get: _Getter, by_series: bool, n_inputs: int, n_outputs: int) -> OwnScalers | None:
    """Return the scalers of each series; None if all series share one."""
    if not by_series:
        get("series", lambda v: v is None)
        return None
    record = get("series", lambda v: _mapping(v) and _names(v.get("names")))
    n, scalers = len(record["names"]), []
    for key, n_columns in (("inputs", n_inputs), ("outputs", n_outputs)):
        get.refuse_if(not _scaling(n, n_columns)(parts := record.get(key)), "series")
        offsets, scales = (np.array(parts[k], float) for k in ("offset", "scale"))
        of_all = zip(record["names"], offsets, scales, strict=True)
        scalers.append({name: Scaler(offset, scale) for name, offset, scale in of_all})
    return OwnScalers(*scalers)


def _input_names(columns: Columns) -> list[str]:
    """Return the names of the model's inputs, as in `tuner.data.features.make_table`."""
    series = [name for name in columns.categories if name == columns.id]
    calendar = [f"{kind}_{wave}" for kind in columns.calendar for wave in ("sin", "cos")]
    lags = [f"{name}_lag_{lag}" for name, lags in columns.lags.items() for lag in lags]
    return [*(columns.features or []), *series, *calendar, *lags]


def _pairs(get: _Getter) -> Pipeline:
    targets = get("targets", _names)
    get.refuse_if(len(targets) > 1, "targets")
    columns = Columns(
        time=None,
        id=None,
        targets=[],
        features=None,
        missing="refuse",
        text=get("text", _name),
        level=get("level", _one_of("character", "word")),
        max_length=get("max_length", _or_none(_count)),
        keep=get("keep", _one_of("first", "last")),
        dialect=get.dialect("read"),
    )
    get("features", lambda v: v == [columns.text])
    source, target = (tuple(get(key, _names)) for key in ("vocabulary", "target_vocabulary"))
    return Pipeline(
        task="translate",
        columns=columns,
        targets=tuple(targets),
        width=get("width", _count),
        vocabulary=Vocabulary(source, len(source)),
        target=Vocabulary(target, len(target)),
        longest=get("longest", lambda v: _count(v) and v <= _LONGEST_TEXT),
        beam=get("beam", lambda v: _count(v) and v <= _WIDEST_BEAM),
    )


def _sequences(get: _Getter, task: str) -> Pipeline:
    targets, features = get("targets", _names), get("features", _names)
    text, tokens = get("text", _or_none(_name)), get("tokens", _or_none(_name))
    reads_tokens = text is not None or tokens is not None
    columns = Columns(
        time=get("time", _or_none(_name)),
        id=get("id", _or_none(_name)),
        targets=[],
        features=None if reads_tokens else features,
        missing=get("missing", _one_of("refuse", "ffill", "interpolate")),
        text=text,
        level=get("level", _one_of("character", "word")),
        tokens=tokens,
        vocabulary_size=get("vocabulary_size", _or_none(_count)),
        max_length=get.optional("max_length", _or_none(_count), None),
        keep=get.optional("keep", _one_of("first", "last"), "first"),
        dialect=get.dialect("read"),
    )
    each_step, has_classes = task in ("label", "regress_steps"), task in ("classify", "label")
    # A text is a sequence of its own.
    get.refuse_if(text is not None and (columns.id or columns.time or tokens or each_step), "text")
    get.refuse_if(has_classes and len(targets) > 1, "targets")
    get.refuse_if(each_step and columns.max_length is not None, "max_length")
    vocabulary = None
    if reads_tokens:
        size = columns.vocabulary_size
        get.refuse_if(size is not None and text is not None, "vocabulary_size")
        known = tuple(get("vocabulary", _names if size is None else _numbers_below(size)))
        if size is None or known:
            vocabulary = Vocabulary(known, len(known), numbered=size is not None)
        else:
            vocabulary = Vocabulary.of_numbers(size)
    return Pipeline(
        task=task,
        columns=columns,
        targets=tuple(targets),
        width=get("width", _count),
        classes=tuple(get("classes", _names if has_classes else lambda v: v == [])),
        vocabulary=vocabulary,
        inputs=None if reads_tokens else get.scaler("inputs", len(features)),
        outputs=get.scaler("outputs", len(targets)) if not has_classes else None,
    )


class _Getter:
    """Reads and checks the values of keys."""

    def __init__(self, record: dict[str, Any], path: Path) -> None:
        self._record, self._path = record, path

    def __call__(self, key: str, is_valid: _Check) -> Any:
        """Return the value of a key; raises ModelError if it is missing or invalid."""
        if key not in self._record:
            raise self._error(key, "the key is missing")
        value = self._record[key]
        self.refuse_if(not is_valid(value), key)
        return value

    def optional(self, key: str, is_valid: _Check, default: Any) -> Any:
        """Return the value of a key that older versions did not write, or the default."""
        return self(key, is_valid) if key in self._record else default

    def dialect(self, key: str) -> Dialect:
        """Return the dialect of files; older models have none."""
        return Dialect.of(self.optional(key, _dialect, {}))

    def scaler(self, key: str, n_columns: int) -> Scaler:
        """Return the scaler of `n_columns` columns."""
        record = self(key, _scaling(n_columns))
        return Scaler(np.array(record["offset"], float), np.array(record["scale"], float))

    def intervals(
        self, key: str, horizon: int, n_targets: int, n_series: int | None
    ) -> Intervals | None:
        """Return the intervals around a forecast of `horizon` steps; None if the model has none.

        If each of `n_series` series has its own scale, the radii are in units of the scales.
        """
        record = self(key, _or_none(_mapping))
        if record is None:
            return None
        levels, given = record.get("levels"), record.get("radii")
        shaped = _levels(levels) and _nested(given, (len(levels), horizon, n_targets))
        self.refuse_if(not shaped, key)
        radii = np.array(given, np.float64)
        self.refuse_if((radii < 0).any() or (np.diff(radii, axis=0) < 0).any(), key)
        if (scales := record.get("scales")) is None and n_series is None:
            return Intervals(tuple(levels), radii)
        scaled = n_series is not None and _nested(scales, (n_series, n_targets))
        self.refuse_if(not scaled or not (np.array(scales) > 0).all(), key)
        return Intervals(tuple(levels), radii, np.array(scales, np.float64))

    def refuse_if(self, condition: object, key: str) -> None:
        """Raise ModelError about the value of a key if a condition holds."""
        if condition:
            value = reprlib.repr(self._record.get(key))
            raise self._error(key, f"no model has {value} there")

    def _error(self, key: str, rule: str) -> ModelError:
        remedy = "export the model again"
        return ModelError(rule, where=show_path(self._path), key=key, remedy=remedy)


def _or_none(check: _Check) -> _Check:
    return lambda v: v is None or check(v)


def _one_of(*values: str) -> _Check:
    return lambda v: isinstance(v, str) and v in values


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _text(value: Any) -> bool:
    return isinstance(value, str) and not _HALF.search(value)


def _name(value: Any) -> bool:
    return _text(value) and value != ""


def _list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and codecs.lookup(value)._is_text_encoding
    except (LookupError, ValueError):  # there is none, or it is no text
        return False


def _zone(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(zoneinfo.ZoneInfo(value))
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return False


_DIALECT: dict[str, _Check] = {
    "encoding": _encoding,
    "separator": lambda v: v == "whitespace" or (_text(v) and len(v) == 1 and v not in "\"'\r\n"),
    "decimal": lambda v: v in (".", ","),
    "thousands": lambda v: _text(v) and len(v) == 1,
    "comment": _name,
    "skip_rows": lambda v: v == 0 or _count(v),
    "unit_row": _bool,
    "skip_footer": lambda v: v == 0 or _count(v),
    "missing_values": _list_of_texts,
    "units": _list_of_texts,
    "date_format": lambda v: _text(v) and (v == "excel" or "%" in v),
    "timezone": _zone,
    "time_columns": lambda v: _names(v) and len(v) > 1,
    "sort": _bool,
    "drop_duplicates": _bool,
}


def _all_in(*values: str) -> _Check:
    return lambda v: v == [] or (_names(v) and set(v) <= set(values))


def _names(value: Any) -> bool:
    return _list_of_texts(value) and _differ(value)


def _names_or_empty(value: Any) -> bool:
    return value == [] or _names(value)


def _differ(values: list[Any]) -> bool:
    """Whether there are values, and none twice."""
    return 0 < len(values) == len(set(values))


def _numbers_below(size: int) -> _Check:
    """Whether a list holds distinct whole numbers below a size, as texts; it may be empty."""
    return lambda v: (
        _names_or_empty(v)
        and all(re.fullmatch("0|[1-9][0-9]{0,9}", text) and int(text) < size for text in v)
    )


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def _frequency(value: Any) -> bool:
    """Whether pandas knows the frequency, and it leads forward in time."""
    if not isinstance(value, str):
        return False
    begin = pd.Timestamp("2000-01-01")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated names
            return bool(begin + offset_of(value) > begin)
    except (OverflowError, ValueError):
        return False


def _categories(value: Any) -> bool:
    """Whether the value maps columns to their known categories, sorted."""
    return isinstance(value, dict) and all(
        _text(name) and _names_or_empty(known) and known == sorted(known)
        for name, known in value.items()
    )


def _lags(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _text(name) and isinstance(lags, list) and all(map(_count, lags)) and _differ(lags)
        for name, lags in value.items()
    )


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _LARGEST for v in value
    )


def _levels(value: Any) -> bool:
    """Whether the value is a list of ascending shares."""
    if not _numbers(value) or not value:
        return False
    return value[0] > 0 and value[-1] < 1 and all(a < b for a, b in itertools.pairwise(value))


def _scaling(*sizes: int) -> _Check:
    """Whether a value maps offset and scale to nested lists of these lengths, no scale 0."""
    return lambda v: (
        _mapping(v)
        and all(_nested(v.get(key), sizes) for key in ("offset", "scale"))
        and bool(np.all(v["scale"]))
    )


def _dialect(value: Any) -> bool:
    return _mapping(value) and all(
        name in _DIALECT and _DIALECT[name](option) for name, option in value.items()
    )


def _nested(value: Any, sizes: tuple[int, ...]) -> bool:
    """Whether the value is nested lists of numbers, of these lengths."""
    if not isinstance(value, list) or len(value) != sizes[0]:
        return False
    if len(sizes) == 1:
        return _numbers(value)
    return all(_nested(part, sizes[1:]) for part in value)


def _powers(value: Any) -> bool:
    return _numbers(value) and all(LAMBDAS[0] <= power <= LAMBDAS[1] for power in value)


def _quantiles(value: Any) -> bool:
    return _numbers(value) and all(0 < q < 1 for q in value) and (not value or 0.5 in value)
