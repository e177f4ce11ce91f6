"""Predictions: forecasts of series; values, classes and translations of sequences."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tuner.data.features import (
    INSTALL,
    ClassColumn,
    Table,
    emd_is_installed,
    make_table,
    modes_of,
    with_class_columns,
)
from tuner.data.preprocessing import Preparation, Scaler, SeriesScaler
from tuner.data.reference import SKIP, to_units, windows_without_gaps, without_gaps
from tuner.data.resampling import Coming, even_rows, with_coming, with_future
from tuner.data.sequence_table import SequenceTable
from tuner.data.series_table import Series, ends_with_targets, series_of
from tuner.data.vocabulary import (
    UNKNOWN,
    beam_search,
    categories_in,
    first_outside,
    number_classes,
    numbered,
    shown,
    written_text,
)
from tuner.errors import ModelError, refusal
from tuner.prediction.numpy_session import softmax
from tuner.prediction.pipeline import Pipeline
from tuner.prediction.session import BATCH, Runner
from tuner.tables.frequencies import bounds_of, following, rows_of
from tuner.tables.table import RawTable
from tuner.tables.timestamps import show_time

_NAMED = 5  # series or tokens in a message, at most


class PredictionWarning(UserWarning):
    """Part of the data has no prediction, or is unknown to the model."""


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names, with underscores behind repeated ones."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += "_"
        found.append(name)
    return found


def prediction_columns(pipeline: Pipeline) -> list[str]:
    """Return the names of the columns of a prediction."""
    columns, targets = pipeline.columns, pipeline.targets
    probabilities = [f"p_{name}" for name in pipeline.classes]
    if pipeline.target is not None:
        return distinct(["row", *targets])
    names = [] if columns.id is None else [columns.id]
    if not pipeline.of_series:
        names += [columns.time] if pipeline.each_step and columns.time is not None else []
        names += ["row"] if pipeline.each_step or columns.id is None else []
        return distinct([*names, *targets, *probabilities])
    names.append(columns.time or "row")
    if pipeline.classes:
        return distinct([*names, *targets, *probabilities])
    names.append("step")
    levels = pipeline.intervals.levels if pipeline.intervals else ()
    for target in targets:
        quantiles = [pipeline.quantiles[at] for at in pipeline.output_order[1:]]
        names += [target, *(f"{target}_q{quantile:g}" for quantile in quantiles)]
        names += [f"{target}_{end}_{level:g}" for level in levels for end in ("lower", "upper")]
    return distinct(names)


def _frame(pipeline: Pipeline, columns: Iterable[np.ndarray | pd.DatetimeIndex]) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(prediction_columns(pipeline), columns, strict=True)))


def _class_columns(pipeline: Pipeline, logits: np.ndarray) -> list[np.ndarray]:
    """Return the most probable class, and the probability of each, (rows,)."""
    probabilities = softmax(logits.astype(np.float64))
    return [np.array(pipeline.classes, object)[probabilities.argmax(axis=1)], *probabilities.T]


def _warn(text: str) -> None:
    """Warn, with the line that called the model."""
    depth = 1
    while sys._getframe(depth).f_globals["__name__"].startswith("tuner.prediction"):
        depth += 1
    warnings.warn(text, PredictionWarning, stacklevel=depth + 1)


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def predict_sequences(pipeline: Pipeline, raw: RawTable, runner: Runner) -> pd.DataFrame:
    """Predict a value or a class of every sequence, or of every row if every step has one.

    Raises:
        DataError: the file does not fit the model.
    """
    columns, each_step = pipeline.columns, pipeline.each_step
    table = SequenceTable.of(raw, columns, pipeline.task)
    _check_classes(pipeline, raw)
    if pipeline.vocabulary is None:
        assert pipeline.inputs is not None
        _, values, _ = table.features()
        steps, bounds = pipeline.inputs.transform(values), table.shortened(table.bounds)
        _check_steps(table, bounds, runner.steps)
    else:
        steps, bounds = _encode(pipeline, table)
    outputs = runner.sequences(steps, bounds, each_step=each_step)

    found: list[np.ndarray] = []
    in_file = np.argsort(table.rows) if each_step else np.arange(len(outputs))
    if columns.id is not None:
        names = np.array(table.names, object)
        found.append(names.repeat(np.diff(bounds)[:, 0])[in_file] if each_step else names)
    if each_step and columns.time is not None:
        found.append(raw.frame[columns.time].to_numpy())
    if each_step or columns.id is None:
        found.append(np.arange(1, len(outputs) + 1))
    if pipeline.classes:
        found += _class_columns(pipeline, outputs[in_file])
    else:
        assert pipeline.outputs is not None
        scaling = pipeline.outputs
        values = outputs[in_file][:, None] if each_step else outputs  # (n, 1, targets)
        found += list(to_units(values, scaling.offset, scaling.scale)[:, 0].T)
    return _frame(pipeline, found)


def translate(pipeline: Pipeline, raw: RawTable, runner: Runner) -> pd.DataFrame:
    """Translate every text by beam search.

    Raises:
        DataError: the file does not fit the model.
    """
    columns, target = pipeline.columns, pipeline.target
    assert target is not None
    steps, bounds = _encode(pipeline, SequenceTable.of(raw, columns, pipeline.task))
    texts: list[str] = []
    for begin in range(0, len(bounds), BATCH):
        batch = bounds[begin : begin + BATCH]

        def next_logits(
            of: np.ndarray, prefix: np.ndarray, batch: np.ndarray = batch
        ) -> np.ndarray:
            return runner.next_logits(steps, batch[of], prefix)

        sizes = {"tokens": len(target) + 2, "longest": pipeline.longest, "width": pipeline.beam}
        translations = beam_search(next_logits, len(batch), **sizes)
        texts += [written_text(row, target, columns.level) for row in translations]
    return _frame(pipeline, [np.arange(1, len(texts) + 1), np.array(texts, object)])


def _encode(pipeline: Pipeline, table: SequenceTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all tokens, (rows,), and the rows of each sequence, (n, 2)."""
    assert pipeline.vocabulary is not None
    tokens, bounds = table.tokens()
    _check_numbers(pipeline, table, tokens)
    steps, bounds = pipeline.vocabulary.encode(tokens), table.shortened(bounds)
    read = rows_of(bounds)
    unknown = tokens[read][steps[read] == UNKNOWN].tolist()
    if unknown:
        names = _first_names(list(map(repr, dict.fromkeys(unknown))))
        _warn(
            f"{len(unknown)} of {len(read)} tokens are not in the model's vocabulary and read as "
            f"unknown: {names}"
        )
    return steps, bounds


def _check_classes(pipeline: Pipeline, raw: RawTable) -> None:
    """Refuse a file with classes unknown to the model."""
    target = pipeline.targets[0]
    if not pipeline.classes or target not in raw.names:
        return
    column = raw.raw_strings([target])[target]
    labelled = column[column != ""]
    try:
        found, numbers = number_classes(labelled)
    except ValueError as error:
        found, numbers = (str(error),), np.zeros(1, np.int64)
        labelled = np.array([str(error)], object)
    for at, name in enumerate(found):
        if name not in pipeline.classes:
            as_written = labelled[numbers == at][0]
            place = raw.place_of(int(np.flatnonzero(column == as_written)[0]))
            rule = f"column {target!r} must hold classes that the model knows"
            remedy = "leave the column out to predict all the same"
            raise refusal(raw.path, "data.target", rule, got=f"{name!r} in {place}", remedy=remedy)


def _check_steps(table: SequenceTable, bounds: np.ndarray, steps: int | None) -> None:
    """Refuse sequences of a length other than the model's."""
    lengths = np.diff(bounds)[:, 0]
    if steps is None or not len(others := np.flatnonzero(lengths != steps)):
        return
    first = others[0]
    rule = f"sequences must have {steps} steps, as the model has a linear path"
    got = f"{lengths[first]} in {str(table.names[first])!r}"
    got += f" and {len(others) - 1} more of other lengths" if len(others) > 1 else ""
    raise refusal(table.path, "data.id", rule, got=got, remedy="leave them out")


def _check_numbers(pipeline: Pipeline, table: SequenceTable, tokens: np.ndarray) -> None:
    """Refuse tokens that are not numbers below the vocabulary's size, if the model has one."""
    size = pipeline.columns.vocabulary_size
    if size is None or (row := first_outside(tokens, size)) is None:
        return
    place = table.raw.place_of(int(table.rows[row]))
    rule = f"column {pipeline.columns.tokens!r} must hold numbers from 0 to {size - 1}"
    remedy = "the model knows no other tokens: correct it"
    raise refusal(table.path, "data.tokens", rule, got=f"{tokens[row]!r} in {place}", remedy=remedy)


def forecast(
    pipeline: Pipeline,
    raw: RawTable,
    runner: Runner,
    all_windows: bool,
    at: np.ndarray | None = None,
    future: RawTable | None = None,
) -> pd.DataFrame:
    """Forecast the horizon after the last row of each series, or after every possible row.

    Args:
        pipeline: of the model.
        raw: the rows, with future rows behind them if columns are known ahead.
        runner: of the model.
        all_windows: whether to begin after every row that has enough rows before it.
        at: (n,), the first rows of the forecasts, in series without gaps and future rows; by
            default `all_windows` decides.
        future: the future rows, in place of those behind `raw`.

    Raises:
        DataError: the series do not fit the model, are too short, or lack known future values.
    """
    columns, horizon = pipeline.columns, pipeline.horizon
    if pipeline.classes:
        column = ClassColumn(pipeline.classes, pipeline.class_columns)
        raw = with_class_columns(raw, pipeline.targets[0], column)
    read = _read_series(pipeline, raw, columns, coming=True)
    if read.date_order.in_doubt:
        _warn(f"dates were {read.date_order.note}")
    if future is not None:
        read = with_future(read, columns, _future_rows(pipeline, future), horizon)
    series, coming = even_rows(read, columns), None
    if columns.known_future is not None:
        coming = with_coming(series, columns, horizon)
        series = coming.series
    job = _Forecast(pipeline, series, make_table(series, columns, pipeline.transform), runner)
    after_last = at is None and not all_windows
    firsts = series.bounds[:, 0] + job.table.first + pipeline.window
    ends = lasts = series.bounds[:, 1] if coming is None else coming.ends
    job.check_lengths(ends, firsts <= ends)
    if coming is not None:
        lasts = coming.lasts
        if after_last or not (firsts <= lasts).any():
            coming.refuse(firsts <= ends, raw.path if future is None else future.path)
        elif at is None:
            _warn_of_unknown(coming, firsts)
    if after_last:
        if coming is None:
            job.warn_of_missing_targets()
        job.warn_of_different_ends(ends, firsts <= ends)
        firsts = np.where(firsts <= ends, ends, firsts)
    counts = (lasts + 1 - firsts).clip(0)
    of = np.repeat(np.arange(len(counts)), counts)  # (samples,), their series
    samples = np.arange(len(of)) + np.repeat(firsts - bounds_of(counts)[:, 0], counts)
    wanted = np.ones(len(samples), bool)
    if at is not None:
        wanted = np.isin(samples - (of * horizon if coming is not None else 0), at)
    if columns.missing == SKIP:
        wanted &= job.without_gaps(samples, of, all_windows)
    return job.run(samples[wanted], of[wanted])


def _read_series(
    pipeline: Pipeline, raw: RawTable, columns: Preparation, *, coming: bool = False
) -> Series:
    options = {"day_first": pipeline.day_first, "holidays": pipeline.holidays}
    return series_of(raw, columns, pipeline.frequency, **options, coming=coming)


def _future_rows(pipeline: Pipeline, future: RawTable) -> Series:
    """Return the series of a file of future rows; some series may have none."""
    columns = pipeline.columns
    read = replace(
        columns, targets=[], features=columns.known_future, known_future=None, missing="ffill",
        categories=[name for name in columns.categories if name in (columns.known_future or [])],
        static=[], lags={}, calendar=[], wide=None,
        id=columns.id if columns.id in future.names else None,
    )  # fmt: skip
    return _read_series(pipeline, future, read)


def _warn_of_unknown(coming: Coming, firsts: np.ndarray) -> None:
    """Warn if known future values are missing for the last forecasts."""
    short = np.where(firsts <= coming.ends, coming.ends - coming.lasts, 0)
    if short.any():
        at = int(short.argmax())
        rows = f"{_last_rows(short[at])}{coming.series.whose(at)}"
        _warn(f"no forecast after {rows}: known future values are missing")


def _last_rows(n: int) -> str:
    return "the last row" if n == 1 else f"the last {n} rows"


@dataclass(frozen=True, eq=False)
class _Forecast:
    """A model and the series that it forecasts."""

    pipeline: Pipeline
    series: Series
    table: Table  # of the series
    runner: Runner

    def run(self, samples: np.ndarray, of: np.ndarray) -> pd.DataFrame:
        """Forecast from given first rows, (samples,), of given series, (samples,)."""
        pipeline, series, table = self.pipeline, self.series, self.table
        horizon, scalers = pipeline.horizon, self._scalers()
        inputs = np.concatenate([
            of_inputs.transform(table.inputs[slice(*rows)])
            for (of_inputs, _), rows in zip(scalers, series.bounds, strict=True)
        ])  # fmt: skip
        self._put_categories(inputs, samples)
        outputs = self.runner.windows(
            inputs, samples, pipeline.window, self._modes(), table.known_columns
        )
        place = (samples - series.bounds[of, 0])[:, None] + np.arange(horizon)  # in its series
        found: list[np.ndarray | pd.DatetimeIndex] = []
        if pipeline.columns.id is not None:
            found.append(np.array(series.names, object)[of].repeat(horizon))
        found.append(place.ravel() + 1 if pipeline.columns.time is None else self._times(of, place))
        if pipeline.classes:
            return _frame(pipeline, [*found, *_class_columns(pipeline, outputs)])
        found.append(np.tile(np.arange(1, horizon + 1), len(samples)))
        values = to_units(
            outputs,
            np.stack([own.offset for _, own in scalers])[of],
            np.stack([own.scale for _, own in scalers])[of],
            transform=pipeline.transform,
            history=table.truth[samples[:, None] + np.arange(-pipeline.transform.lost_rows, 0)],
        )
        ends: list[np.ndarray] = []  # of each interval, (samples, horizon, targets)
        if pipeline.intervals is not None:
            points = values[..., pipeline.output_order[0]] if pipeline.quantiles else values
            scales = self._calibrated_scales(scalers)
            of_samples = 1.0 if scales is None else scales[of]
            lower, upper = pipeline.intervals.around(points, pipeline.transform, of_samples)
            ends = [end[..., i] for i in range(lower.shape[-1]) for end in (lower, upper)]
        for i in range(len(pipeline.targets)):
            of_target = values[:, :, i].reshape(
                len(samples) * horizon, -1
            )  # (rows, quantiles or 1)
            found += [of_target[:, at] for at in pipeline.output_order]
            found += [end[:, :, i].ravel() for end in ends]
        return _frame(pipeline, found)

    def check_lengths(self, ends: np.ndarray, long_enough: np.ndarray) -> None:
        """Refuse series that are all too short for a forecast, and warn of single ones."""
        if long_enough.all():
            return
        pipeline, series, columns = self.pipeline, self.series, self.pipeline.columns
        lengths = ends - series.bounds[:, 0]
        by_differences, targets = pipeline.transform.lost_rows, set(columns.targets)
        lost = max(
            [by_differences]
            + [max(v) + by_differences * (k in targets) for k, v in columns.lags.items()]
        )
        needs = f"the model needs {pipeline.window + lost} rows"
        if lost:
            needs += f" ({pipeline.window} to read, {lost} before them for lags or differences)"
        if not long_enough.any():
            got = f"{lengths.max()}"
            got += f" of {columns.resample}" if columns.resample else ""
            got += " in the longest series" if len(lengths) > 1 else ""
            if lengths.max() >= pipeline.window + lost:
                got += ", of which the first lack values that nothing before can fill in"
            raise refusal(series.path, "data.path", needs, got=got, remedy="pass more rows")
        names = [name for name, enough in zip(series.names, long_enough, strict=True) if not enough]
        _warn(f"no forecast for {_first_names(names)}: {needs} in a series")

    def without_gaps(self, samples: np.ndarray, of: np.ndarray, all_windows: bool) -> np.ndarray:
        """Return a mask of the windows without a gap, (samples,); raises DataError if all have."""
        series, window = self.series, self.pipeline.window
        whole, _ = without_gaps(series, self.pipeline.columns)
        read = windows_without_gaps(whole, samples, window)
        needs = f"the model needs values in each of the {window} rows that it reads"
        if not read.any():
            last = np.flatnonzero(~whole[: samples.max()])[-1]
            got = f"none in {series.place(int(last))}"
            raise refusal(series.path, "data.path", needs, got=got, remedy="fill it in")
        left_out = np.setdiff1d(of, of[read]).tolist()
        if left_out and not all_windows:
            _warn(f"no forecast for {_first_names([series.names[i] for i in left_out])}: {needs}")
        return read

    def warn_of_missing_targets(self) -> None:
        """Warn if the last rows have no target: the forecast begins after them."""
        series = self.series
        lacking = series.bounds[:, 1] - ends_with_targets(self.table.known, series.bounds)
        if lacking.any():
            at = int(lacking.argmax())
            whose = f" of {series.names[at]}" if len(series.names) > 1 else ""
            have, them = ("has", "it") if lacking[at] == 1 else ("have", "them")
            _warn(
                f"{_last_rows(lacking[at])}{whose} {have} no target: filled in, and the forecast "
                f"begins after {them}"
            )

    def warn_of_different_ends(self, ends: np.ndarray, long_enough: np.ndarray) -> None:
        """Warn if forecasts begin at different times."""
        series, times = self.series, self.series.times
        if not self.pipeline.columns.time or times is None:
            return
        each = [(times[ends[i] - 1], series.names[i]) for i in np.flatnonzero(long_enough)]
        (first, earliest), (last, latest) = min(each), max(each)
        if first < last:
            _warn(
                f"the series end at different times, {earliest} at {show_time(first)} and {latest} "
                f"at {show_time(last)}; each forecast begins after its own last row"
            )

    def _modes(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a function from windows to their modes; None for no modes.

        Raises:
            ModelError: EMD-signal is not installed.
        """
        if not self.pipeline.modes:
            return None
        if not emd_is_installed():
            rule = "the model splits its windows with EMD-signal, which is not installed"
            raise ModelError(rule, remedy=INSTALL)
        columns, modes = list(self.table.target_columns), self.pipeline.modes
        return lambda windows: modes_of(windows[:, :, columns], modes)

    def _put_categories(self, inputs: np.ndarray, samples: np.ndarray) -> None:
        """Write the numbers of categories into (rows, features), and warn of unknown ones."""
        table, pipeline = self.table, self.pipeline
        horizon = pipeline.horizon if table.known_columns else 0
        begins = np.zeros(len(inputs) + 1, np.int64)
        np.add.at(begins, samples - pipeline.window, 1)
        np.add.at(begins, samples + horizon, -1)
        is_read = begins.cumsum()[:-1] > 0
        unknown = []
        for at, codes in zip(table.category_columns, table.codes.T, strict=True):
            name = table.names[at]
            levels, known = self.series.levels[name], pipeline.categories[name]
            inputs[:, at] = numbered(codes, levels, known)
            if others := categories_in(codes[is_read], levels, known):
                unknown.append(f"{name} {shown(others)}")
        if unknown:
            _warn(f"the model was not trained on {'; '.join(unknown)}: read as unknown")

    def _scalers(self) -> list[tuple[Scaler, Scaler]]:
        """Return the scalers of inputs and outputs of each series.

        If each series has its own, that of an unknown series is fitted to its first window, as
        later rows must not change the forecasts before them.
        """
        pipeline, series, table = self.pipeline, self.series, self.table
        inputs, outputs, own = pipeline.inputs, pipeline.outputs, pipeline.own
        assert inputs is not None
        assert outputs is not None
        if own is None:
            return [(inputs, outputs)] * len(series.names)
        begins = series.bounds[:, 0] + table.first
        rows = np.column_stack([begins, np.minimum(begins + pipeline.window, series.bounds[:, 1])])
        found, unknown = [], []
        for name, given in zip(series.names, rows, strict=True):
            if name in own.inputs:
                found.append((own.inputs[name], own.outputs[name]))
                continue
            unknown.append(name)
            of_inputs, of_outputs = (
                SeriesScaler.fit(pipeline.scale, values, given[None], of_all).of(0)
                for values, of_all in ((table.inputs, inputs), (table.targets, outputs))
            )
            found.append((of_inputs.sharing(of_outputs, table.lag_columns), of_outputs))
        if unknown:
            _warn(
                f"the model was not trained on {_first_names(unknown)}: scaled by the rows of its "
                "first window"
            )
        return found

    def _calibrated_scales(self, scalers: list[tuple[Scaler, Scaler]]) -> np.ndarray | None:
        """Return the factors of the intervals' radii, (series, targets); None if all are 1.

        Of a series in training it is the scale of the calibration, which differs from that of a
        refit; of another series its scale here.
        """
        own, intervals = self.pipeline.own, self.pipeline.intervals
        if own is None or intervals is None or intervals.scales is None:
            return None
        known = dict(zip(own.outputs, intervals.scales, strict=True))
        of_all = zip(self.series.names, scalers, strict=True)
        return np.stack([known.get(name, scaler.scale) for name, (_, scaler) in of_all])

    def _times(self, of: np.ndarray, place: np.ndarray) -> pd.DatetimeIndex:
        """Return the times of rows, (samples, horizon), counted in their series, past its end."""
        series, every = self.series, []
        for i in range(len(series.names)):
            times = series.times_of(i)
            every.append(times.append(following(times, series.frequency, place.shape[1])))
        starts = bounds_of([len(times) for times in every])[:, 0]
        together = every[0].append(every[1:])
        return pd.DatetimeIndex(together[(starts[of][:, None] + place).ravel()])
