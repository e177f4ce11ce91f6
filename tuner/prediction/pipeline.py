"""What `pipeline.json` says: which columns are read, what is done to them, what comes out."""

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

from tuner.data.intervals import Intervals
from tuner.data.preprocessing import LAMBDAS, NO_TRANSFORM, Scaler, Transform
from tuner.data.vocabulary import Vocabulary
from tuner.errors import ModelError, show_path
from tuner.pipeline_steps import Dialect, is_transform
from tuner.prediction.columns import Columns
from tuner.tables.rows import WideColumns
from tuner.tables.timestamps import offset_of

__all__ = ["Pipeline"]

_MOST = 2**31 - 1  # rows, steps, tokens; numpy counts further
_LONGEST_TEXT, _WIDEST_BEAM = 1_000_000, 64  # tokens, and texts that are kept
_LARGEST = float(np.finfo(np.float32).max)
_HALF = re.compile("[\ud800-\udfff]")  # of a character in UTF-16: JSON may hold it, UTF-8 not


@dataclass(frozen=True, eq=False)
class OwnScalers:
    """The scalers of series that were trained on, by their names."""

    inputs: dict[str, Scaler]
    outputs: dict[str, Scaler]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """How inputs are made of a file's rows, and predictions of what the model puts out."""

    task: str  # as `tuner.data.reference.Shape` has it
    columns: Columns
    targets: tuple[str, ...]  # what is predicted
    width: int  # the most numbers that a step is in a layer
    classes: tuple[str, ...] = ()
    class_columns: tuple[str, ...] = ()  # in which those of a series' earlier rows are read
    vocabulary: Vocabulary | None = None  # where the steps are tokens
    inputs: Scaler | None = None  # where they are numbers
    outputs: Scaler | None = None  # where values are predicted
    transform: Transform = NO_TRANSFORM  # of what a forecast predicts
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)  # in their numbers' order
    own: OwnScalers | None = None  # where each series has its own
    scale: str = "none"  # how a series is scaled that is not among these
    window: int = 1  # rows that a forecast reads
    horizon: int = 1
    modes: int = 0  # intrinsic mode functions of each target in a window, read beside the rest
    quantiles: tuple[float, ...] = ()
    intervals: Intervals | None = None  # around a forecast
    frequency: str | None = None  # of the rows that a forecast was trained on
    day_first: bool | None = None  # in texts of their times; None where none told
    holidays: bool | None = None  # whether open days without a row are; None: as the rows tell
    target: Vocabulary | None = None  # of what is said of texts
    longest: int = 0  # tokens that are said of one at most
    beam: int = 1

    @property
    def of_series(self) -> bool:
        """Whether windows of series are read; else whole sequences are."""
        return self.task in ("forecast", "coming_class")

    @property
    def each_step(self) -> bool:
        """Whether something is said of every step of a sequence, not of the whole of it."""
        return self.task in ("label", "regress_steps")

    @classmethod
    def of(cls, record: dict[str, Any], path: Path) -> Pipeline:
        """Return what `pipeline.json` at a path says.

        Raises:
            ModelError: it lacks a key, or one cannot be what it is.
        """
        get = _Getter(record, path)
        others = ("regress", "classify", "label", "regress_steps", "translate")
        tasks = ("forecast", "coming_class", *others)
        task = get("task", _one_of(*tasks))
        if task == "translate":
            return _pairs(get)
        return _series(get, task) if task in tasks[:2] else _sequences(get, task)


def _series(get: _Getter, task: str) -> Pipeline:
    targets, window = get("targets", _names), get("window", _count)
    categories = get.optional("categories", _categories, {})
    columns = Columns(
        time=get("time", _name_or_none),
        id=get("id", _name_or_none),
        targets=targets,
        features=get("features", _names),
        missing=get("missing", _one_of("refuse", "ffill", "interpolate", "skip")),
        resample=get("resample", _frequency_or_none),
        aggregate=get("aggregate", _one_of("mean", "sum", "last", "min", "max")),
        calendar=get("calendar", _all_in("hour", "weekday", "month")),
        lags=get("lags", _lags),
        known_future=get.optional("known_future", _known_future, None),
        categories=list(categories),
        static=get.optional("static", lambda v: v == [] or _names(v), []),
        transform=get("transform", is_transform),
        wide=_wide(get),
        dialect=get.dialect("read"),
    )
    transform = Transform.of(columns.transform)
    n_lambdas = len(targets) if transform.pointwise == "box_cox" else 0
    lambdas = get("lambdas", lambda v: _powers(v) and len(v) == n_lambdas)
    by_series = get("scale_by", _one_of("all", "series")) == "series"
    if by_series and columns.id is None:
        raise get.refusal("scale_by", "series")
    if columns.time is None and (columns.resample or columns.calendar):
        raise get.refusal("time", None)
    inputs = _input_names(columns)
    if len(set(inputs)) < len(inputs):
        raise get.refusal("features", columns.features)
    known = set(columns.known_future or [])
    if not known <= set(columns.features or []) - set(targets):
        raise get.refusal("known_future", columns.known_future)
    if not set(columns.static) <= set(columns.features or []) - {*targets, *columns.lags} - known:
        raise get.refusal("static", columns.static)
    if columns.static and columns.id is None:
        raise get.refusal("id", None)
    of_categories = set(categories)
    if not of_categories <= {*(columns.features or []), columns.id} - {*targets, *columns.lags}:
        raise get.refusal("categories", categories)
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
        frequency=get("frequency", _frequency_or_none),
        day_first=get("day_first", lambda v: v is None or isinstance(v, bool)),
        holidays=get.optional("holidays", lambda v: v is None or isinstance(v, bool), None),
    )


def _classes_of_series(
    get: _Getter, task: str, columns: Columns, horizon: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes of a series' rows, and the columns in which they are read; of none ()."""
    if task == "forecast":
        return (), ()
    classes = get("classes", _names)
    read = get("class_columns", lambda v: v == [] or (_names(v) and len(v) == len(classes)))
    if not set(read) <= set(columns.features or []):
        raise get.refusal("class_columns", read)
    for key, value, only in (
        ("targets", columns.targets, columns.targets[:1]),
        ("horizon", horizon, 1),
        ("transform", columns.transform, "none"),
        ("quantiles", get("quantiles", _quantiles), []),
        ("missing", columns.missing, "refuse" if columns.missing == "refuse" else "ffill"),
    ):
        if value != only:
            raise get.refusal(key, value)
    return tuple(classes), tuple(read)


def _wide(get: _Getter) -> WideColumns | None:
    """Return the columns that are series; a model that is older than the key has none."""
    record = get.optional("wide", lambda v: v is None or isinstance(v, dict), None)
    if record is None:
        return None
    columns = record.get("columns")
    named = all(_text(record.get(key)) for key in ("id", "value"))
    if not named or not (_text(columns) or _names(columns)):
        raise get.refusal("wide", record)
    return WideColumns(record["id"], record["value"], columns)


def _modes(get: _Getter, columns: Columns) -> int:
    """Return how many modes of each target are read; what is older than the key reads none."""
    decompose = get.optional("decompose", _decomposes, "none")
    if decompose == "none" or decompose["kind"] != "emd":
        return 0
    if not set(columns.targets) <= set(columns.features or []):
        raise get.refusal("features", columns.features)
    return int(decompose["components"]) - 1


def _decomposes(value: Any) -> bool:
    """Say whether it is none, or parts of a window."""
    if value == "none":
        return True
    if not isinstance(value, dict):
        return False
    key = {"moving_average": "length", "emd": "components"}.get(str(value.get("kind")))
    return key is not None and _count(value.get(key)) and value[key] >= 2


def _own_scalers(get: _Getter, by_series: bool, n_inputs: int, n_outputs: int) -> OwnScalers | None:
    """Return the scalers of the series; None, as there must be none, where all have one."""
    if not by_series:
        get("series", lambda v: v is None)
        return None
    record = get("series", lambda v: isinstance(v, dict) and _names(v.get("names")))
    scalers = {}
    for key, n_columns in (("inputs", n_inputs), ("outputs", n_outputs)):
        parts = record.get(key)
        if not isinstance(parts, dict):
            raise get.refusal("series", record)
        columns = [parts.get(name) for name in ("offset", "scale")]
        if any(not isinstance(of, list) or len(of) != len(record["names"]) for of in columns):
            raise get.refusal("series", record)
        offsets, scales = (of or [] for of in columns)
        found = [_scaler_of(o, s, n_columns) for o, s in zip(offsets, scales, strict=True)]
        known = [scaler for scaler in found if scaler is not None]
        if len(known) < len(found):
            raise get.refusal("series", record)
        scalers[key] = dict(zip(record["names"], known, strict=True))
    return OwnScalers(scalers["inputs"], scalers["outputs"])


def _scaler_of(offset: Any, scale: Any, n_columns: int) -> Scaler | None:
    """Return the scaling of so many columns; None where it cannot be."""
    if not all(_numbers(part) and len(part) == n_columns for part in (offset, scale)):
        return None
    return None if 0 in scale else Scaler(np.array(offset, float), np.array(scale, float))


def _input_names(columns: Columns) -> list[str]:
    """Return the names that `tuner.data.features.make_table` gives to what the model reads."""
    series = [name for name in columns.categories if name == columns.id]
    calendar = [f"{kind}_{wave}" for kind in columns.calendar for wave in ("sin", "cos")]
    lags = [f"{name}_lag_{lag}" for name, lags in columns.lags.items() for lag in lags]
    return [*(columns.features or []), *series, *calendar, *lags]


def _pairs(get: _Getter) -> Pipeline:
    targets = get("targets", _names)
    if len(targets) > 1:
        raise get.refusal("targets", targets)
    columns = Columns(
        time=None,
        id=None,
        targets=[],
        features=None,
        missing="refuse",
        text=get("text", lambda v: _text(v) and v != ""),
        level=get("level", _one_of("character", "word")),
        max_length=get("max_length", _count_or_none),
        keep=get("keep", _one_of("first", "last")),
        dialect=get.dialect("read"),
    )
    get("features", lambda v: v == [columns.text])
    known, said = (tuple(get(key, _names)) for key in ("vocabulary", "target_vocabulary"))
    return Pipeline(
        task="translate",
        columns=columns,
        targets=tuple(targets),
        width=get("width", _count),
        vocabulary=Vocabulary(known, len(known)),
        target=Vocabulary(said, len(said)),
        longest=get("longest", lambda v: _count(v) and v <= _LONGEST_TEXT),
        beam=get("beam", lambda v: _count(v) and v <= _WIDEST_BEAM),
    )


def _sequences(get: _Getter, task: str) -> Pipeline:
    targets, features = get("targets", _names), get("features", _names)
    text, tokens = get("text", _name_or_none), get("tokens", _name_or_none)
    reads_tokens = text is not None or tokens is not None
    columns = Columns(
        time=get("time", _name_or_none),
        id=get("id", _name_or_none),
        targets=[],
        features=None if reads_tokens else features,
        missing=get("missing", _one_of("refuse", "ffill", "interpolate")),
        text=text,
        level=get("level", _one_of("character", "word")),
        tokens=tokens,
        vocabulary_size=get("vocabulary_size", _count_or_none),
        max_length=get.optional("max_length", _count_or_none, None),
        keep=get.optional("keep", _one_of("first", "last"), "first"),
        dialect=get.dialect("read"),
    )
    each_step, has_classes = task in ("label", "regress_steps"), task in ("classify", "label")
    if text is not None and (columns.id or columns.time or tokens or each_step):
        raise get.refusal("text", text)  # each is a sequence of its own
    if has_classes and len(targets) > 1:
        raise get.refusal("targets", targets)
    if each_step and columns.max_length is not None:
        raise get.refusal("max_length", columns.max_length)
    vocabulary = None
    if reads_tokens:
        size = columns.vocabulary_size
        if size is not None and text is not None:
            raise get.refusal("vocabulary_size", size)
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
        classes=tuple(get("classes", _names if has_classes else _none)),
        vocabulary=vocabulary,
        inputs=None if reads_tokens else get.scaler("inputs", len(features)),
        outputs=get.scaler("outputs", len(targets)) if not has_classes else None,
    )


class _Getter:
    """Gets the values of keys, and refuses those that cannot be."""

    def __init__(self, record: dict[str, Any], path: Path) -> None:
        self._record, self._path = record, path

    def __call__(self, key: str, can_be: Callable[[Any], bool]) -> Any:
        """Return the value of a key for which `can_be` is true."""
        if key not in self._record:
            rule = "the key is missing"
            remedy = "export the model again"
            raise ModelError(rule, where=show_path(self._path), key=key, remedy=remedy)
        value = self._record[key]
        if not can_be(value):
            raise self.refusal(key, value)
        return value

    def optional(self, key: str, can_be: Callable[[Any], bool], default: Any) -> Any:
        """Return the value of a key that older versions did not write, or the default."""
        return self(key, can_be) if key in self._record else default

    def dialect(self, key: str) -> Dialect:
        """Return how files are written; models of earlier versions do not say."""
        record = self._record.get(key, {})
        if not isinstance(record, dict):
            raise self.refusal(key, record)
        for name, value in record.items():
            kind = _DIALECT.get(name)
            if kind is None or not kind(value):
                raise self.refusal(key, record)
        return Dialect.of(record)

    def scaler(self, key: str, n_columns: int) -> Scaler:
        """Return the scaling of so many columns."""
        record = self(key, lambda v: isinstance(v, dict))
        scaler = _scaler_of(record.get("offset"), record.get("scale"), n_columns)
        if scaler is None:
            raise self.refusal(key, record)
        return scaler

    def intervals(
        self, key: str, horizon: int, n_targets: int, n_series: int | None
    ) -> Intervals | None:
        """Return the intervals around a forecast of so many steps; None where there are none.

        Where each of so many series has its own scale, the radii are multiples of such.
        """
        record = self(key, lambda v: v is None or isinstance(v, dict))
        if record is None:
            return None
        levels, given = record.get("levels"), record.get("radii")
        if not (_levels(levels) and _nested(given, (len(levels), horizon, n_targets))):
            raise self.refusal(key, record)
        radii = np.array(given, np.float64)
        if (radii < 0).any() or (np.diff(radii, axis=0) < 0).any():
            raise self.refusal(key, record)
        if (scales := record.get("scales")) is None and n_series is None:
            return Intervals(tuple(levels), radii)
        if n_series is None or not _nested(scales, (n_series, n_targets)):
            raise self.refusal(key, record)
        if not all(scale > 0 for of_series in scales for scale in of_series):
            raise self.refusal(key, record)
        return Intervals(tuple(levels), radii, np.array(scales, np.float64))

    def refusal(self, key: str, value: Any) -> ModelError:
        """Return the error that a key cannot have a value."""
        rule = f"no model has {reprlib.repr(value)} there"
        remedy = "export the model again"
        return ModelError(rule, where=show_path(self._path), key=key, remedy=remedy)


def _list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


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


_DIALECT: dict[str, Callable[[Any], bool]] = {
    "encoding": _encoding,
    "separator": lambda v: v == "whitespace" or (_text(v) and len(v) == 1 and v not in "\"'\r\n"),
    "decimal": lambda v: v in (".", ","),
    "thousands": lambda v: _text(v) and len(v) == 1,
    "comment": lambda v: _text(v) and v != "",
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


def _one_of(*values: str) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and v in values


def _all_in(*values: str) -> Callable[[Any], bool]:
    return lambda v: v == [] or (_names(v) and set(v) <= set(values))


def _none(value: Any) -> bool:
    return bool(value == [])


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value)) and _differ(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and not _HALF.search(value)


def _differ(values: list[Any]) -> bool:
    """Say whether there are values, and none twice."""
    return 0 < len(values) == len(set(values))


def _numbers_below(size: int) -> Callable[[Any], bool]:
    """Say whether a list holds different whole numbers below a size, as texts; or none."""

    def can_be(value: Any) -> bool:
        if value == []:
            return True
        return _names(value) and all(
            re.fullmatch("0|[1-9][0-9]{0,9}", text) and int(text) < size for text in value
        )

    return can_be


def _name_or_none(value: Any) -> bool:
    return value is None or (_text(value) and value != "")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def _count_or_none(value: Any) -> bool:
    return value is None or _count(value)


def _frequency_or_none(value: Any) -> bool:
    """Say whether it is a step forward in time that pandas knows."""
    if not isinstance(value, str):
        return value is None
    begin = pd.Timestamp("2000-01-01")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name that pandas is about to give up
            return bool(begin + offset_of(value) > begin)
    except (OverflowError, ValueError):
        return False


def _known_future(value: Any) -> bool:
    return value is None or value == [] or _names(value)


def _categories(value: Any) -> bool:
    """Say whether it is columns, and of each the categories that are known, sorted."""
    return isinstance(value, dict) and all(
        _text(name) and (known == [] or (_names(known) and known == sorted(known)))
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
    """Say whether there are shares, rising."""
    if not _numbers(value) or not value:
        return False
    return value[0] > 0 and value[-1] < 1 and all(a < b for a, b in itertools.pairwise(value))


def _nested(value: Any, sizes: tuple[int, ...]) -> bool:
    """Say whether it is lists in lists of these lengths, of numbers."""
    if not isinstance(value, list) or len(value) != sizes[0]:
        return False
    if len(sizes) == 1:
        return _numbers(value)
    return all(_nested(part, sizes[1:]) for part in value)


def _powers(value: Any) -> bool:
    return _numbers(value) and all(LAMBDAS[0] <= power <= LAMBDAS[1] for power in value)


def _quantiles(value: Any) -> bool:
    return _numbers(value) and all(0 < q < 1 for q in value) and (not value or 0.5 in value)
