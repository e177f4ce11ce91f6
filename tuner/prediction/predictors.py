"""Predictors: forecasts of series, and values, classes and translations of sequences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from tuner.data.coming import Coming, with_coming, with_future
from tuner.data.features import (
    INSTALL,
    ClassColumn,
    Table,
    emd_is_installed,
    ends_with_targets,
    make_table,
    modes_of,
    with_class_columns,
)
from tuner.data.preprocessing import Scaler, SeriesScaler
from tuner.data.quality import even_rows
from tuner.data.reference import SKIP, to_units, windows_without_gaps, without_gaps
from tuner.data.sequence_table import SequenceTable, rows_of
from tuner.data.series_table import Series, series_of
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
from tuner.prediction.columns import PredictionWarning, differing
from tuner.prediction.pipeline import Pipeline
from tuner.prediction.session import BATCH, Runner
from tuner.tables.table import RawTable, bounds_of
from tuner.tables.timestamps import following, show_time

__all__ = [
    "forecast",
    "forecast_columns",
    "label_columns",
    "predict_sequences",
    "say_unknown",
    "softmax",
    "translate",
    "translation_columns",
]

_NAMED = 5  # tokens at most


def predict_sequences(pipeline: Pipeline, raw: RawTable, runner: Runner) -> pd.DataFrame:
    """Predict a value or a class of every sequence, or of every row its own.

    Raises:
        DataError: the file is not what the model was trained on.
    """
    columns = pipeline.columns
    table = SequenceTable.of(raw, columns, pipeline.task)
    _check_classes(pipeline, raw)
    if pipeline.vocabulary is None:
        assert pipeline.inputs is not None
        _, values, _ = table.features()
        steps, bounds = pipeline.inputs.transform(values), table.shortened(table.bounds)
        _check_steps(table, bounds, runner.steps)
    else:
        tokens, bounds = table.tokens()
        _check_numbers(pipeline, table, tokens)
        steps, bounds = pipeline.vocabulary.encode(tokens), table.shortened(bounds)
        read = rows_of(bounds, np.arange(len(bounds)))
        say_unknown(tokens[read], steps[read])
    each_step = pipeline.each_step
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
        probabilities = softmax(outputs[in_file].astype(np.float64))
        found.append(np.array(pipeline.classes, object)[probabilities.argmax(axis=1)])
        found += list(probabilities.T)
    else:
        assert pipeline.outputs is not None
        scaling = pipeline.outputs
        values = outputs[in_file][:, None] if each_step else outputs  # (n, 1, targets)
        found += list(to_units(values, scaling.offset, scaling.scale)[:, 0].T)
    return pd.DataFrame(dict(zip(label_columns(pipeline), found, strict=True)))


def label_columns(pipeline: Pipeline) -> list[str]:
    """Return the names of the columns of a prediction of sequences."""
    columns = pipeline.columns
    names = [] if columns.id is None else [columns.id]
    if pipeline.each_step:
        names += [] if columns.time is None else [columns.time]
        names.append("row")
    elif columns.id is None:
        names.append("row")
    return differing([*names, *pipeline.targets, *(f"p_{name}" for name in pipeline.classes)])


def _check_classes(pipeline: Pipeline, raw: RawTable) -> None:
    """Refuse a file that has classes which the model does not know: it is of something else."""
    (target,) = pipeline.targets[:1]
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
            raise refusal(raw.path, "data.target", rule, f"{name!r} in {place}", remedy)


def _check_steps(table: SequenceTable, bounds: np.ndarray, steps: int | None) -> None:
    """Refuse sequences of another length than those that the model can read."""
    lengths = np.diff(bounds)[:, 0]
    if steps is None or not len(others := np.flatnonzero(lengths != steps)):
        return
    first = others[0]
    rule = f"sequences must have {steps} steps, as the model has a linear path"
    got = f"{lengths[first]} in {str(table.names[first])!r}"
    got += f" and {len(others) - 1} more of other lengths" if len(others) > 1 else ""
    raise refusal(table.path, "data.id", rule, got, "leave them out")


def _check_numbers(pipeline: Pipeline, table: SequenceTable, tokens: np.ndarray) -> None:
    """Refuse tokens that are no numbers below the vocabulary's size, where they must be."""
    size = pipeline.columns.vocabulary_size
    if size is None or (row := first_outside(tokens, size)) is None:
        return
    place = table.raw.place_of(int(table.rows[row]))
    rule = f"column {pipeline.columns.tokens!r} must hold numbers from 0 to {size - 1}"
    remedy = "the model knows no other tokens: correct it"
    raise refusal(table.path, "data.tokens", rule, f"{tokens[row]!r} in {place}", remedy)


def say_unknown(tokens: np.ndarray, steps: np.ndarray) -> None:
    """Warn of tokens, (rows,) of str, whose numbers, (rows,), are that of the unknown one."""
    unknown = tokens[steps == UNKNOWN]
    if not len(unknown):
        return
    names = list(dict.fromkeys(unknown.tolist()))
    shown = ", ".join(map(repr, names[:_NAMED]))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    text = f"{len(unknown)} of {len(tokens)} tokens are not in the model's vocabulary and read as "
    warnings.warn(f"{text}unknown: {shown}{more}", PredictionWarning, stacklevel=5)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, (n, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def translate(pipeline: Pipeline, raw: RawTable, runner: Runner) -> pd.DataFrame:
    """Say something of every text.

    Raises:
        DataError: the file is not what the model was trained on.
    """
    columns, vocabulary, target = pipeline.columns, pipeline.vocabulary, pipeline.target
    assert vocabulary is not None
    assert target is not None
    table = SequenceTable.of(raw, columns, pipeline.task)
    tokens, bounds = table.tokens()
    bounds = table.shortened(bounds)
    steps = vocabulary.encode(tokens)
    read = rows_of(bounds, np.arange(len(bounds)))
    say_unknown(tokens[read], steps[read])
    texts: list[str] = []
    for begin in range(0, len(bounds), BATCH):
        of_batch = bounds[begin : begin + BATCH]

        def next_logits(
            of: np.ndarray, prefix: np.ndarray, of_batch: np.ndarray = of_batch
        ) -> np.ndarray:
            return runner.next_logits(steps, of_batch[of], prefix)

        said = beam_search(
            next_logits,
            len(of_batch),
            tokens=len(target) + 2,
            longest=pipeline.longest,
            width=pipeline.beam,
        )
        texts += [written_text(row, target, columns.level) for row in said]
    found = [np.arange(1, len(texts) + 1), np.array(texts, object)]
    return pd.DataFrame(dict(zip(translation_columns(pipeline), found, strict=True)))


def translation_columns(pipeline: Pipeline) -> list[str]:
    """Return the names of the columns of translations."""
    return differing(["row", *pipeline.targets])


_NAMED = 5  # series at most


def forecast(
    pipeline: Pipeline,
    raw: RawTable,
    runner: Runner,
    all_windows: bool,
    at: np.ndarray | None = None,
    future: RawTable | None = None,
) -> pd.DataFrame:
    """Forecast the horizon after the last row of each series, or after every row that can be.

    Args:
        pipeline: of the model.
        raw: the rows, with those to come behind them where columns are known ahead.
        runner: of the model.
        all_windows: whether to begin after every row that has enough rows before it.
        at: (n,), rows of the even series, without rows to come: a forecast begins at each of
            these, and nowhere else.
        future: the rows to come, in place of those behind `raw`.

    Raises:
        DataError: the series are not what the model was trained on, all are too short, or what is
            known of the rows to come is missing.
    """
    columns = pipeline.columns
    if pipeline.classes:
        column = ClassColumn(pipeline.classes, pipeline.class_columns)
        raw = with_class_columns(raw, pipeline.targets[0], column)
    # Where rows are resampled, what comes of it has the frequency.
    read = series_of(
        raw,
        columns,
        pipeline.frequency,
        day_first=pipeline.day_first,
        holidays=pipeline.holidays,
        coming=True,
    )
    if read.date_order.in_doubt:
        warnings.warn(f"dates were {read.date_order.note}", PredictionWarning, stacklevel=4)
    if future is not None:
        read = with_future(read, columns, _future_rows(pipeline, future), pipeline.horizon)
    series = even_rows(read, columns)
    window, horizon = pipeline.window, pipeline.horizon
    coming = None
    if columns.known_future is not None:
        coming = with_coming(series, columns, horizon)
        series = coming.series
    table = make_table(series, columns, pipeline.transform)
    firsts = series.bounds[:, 0] + table.first + window
    lasts = ends = series.bounds[:, 1] if coming is None else coming.ends
    _check_lengths(series, ends, pipeline, firsts <= ends)
    after_last = at is None and not all_windows
    if coming is not None:
        lasts = coming.lasts
        if after_last or not (firsts <= lasts).any():
            coming.refuse(firsts <= ends, raw.path if future is None else future.path)
        elif at is None:
            _note_unknown(coming, firsts)
    if after_last:
        if coming is None:
            _note_lacking(series, table)
        _note_ends(series, ends, pipeline, firsts <= ends)
        firsts = np.where(firsts <= ends, ends, firsts)
    counts = (lasts + 1 - firsts).clip(0)
    of = np.repeat(np.arange(len(counts)), counts)  # (samples,), their series
    samples = np.arange(len(of)) + np.repeat(firsts - bounds_of(counts)[:, 0], counts)
    wanted = np.ones(len(samples), bool)
    if at is not None:
        wanted = np.isin(samples - (of * horizon if coming is not None else 0), at)
    if columns.missing == SKIP:
        wanted &= _without_gaps(series, pipeline, samples, of, all_windows)
    of, samples = of[wanted], samples[wanted]

    scalers = _scalers(series, table, pipeline)
    inputs = [
        of_inputs.transform(table.inputs[slice(*rows)])
        for (of_inputs, _), rows in zip(scalers, series.bounds, strict=True)
    ]
    rows_read = np.concatenate(inputs)
    _put_categories(rows_read, series, table, pipeline, samples)
    known = table.known_columns
    modes = _modes(pipeline, table)
    outputs = runner.windows(rows_read, samples, window, modes, known)
    place = (samples - series.bounds[of, 0])[:, None] + np.arange(horizon)  # in its series
    found: list[np.ndarray | pd.DatetimeIndex] = []
    if columns.id is not None:
        found.append(np.array(series.names, object)[of].repeat(horizon))
    found.append(_times(series, of, place, horizon) if columns.time else place.ravel() + 1)
    if pipeline.classes:
        probabilities = softmax(outputs.astype(np.float64))
        found.append(np.array(pipeline.classes, object)[probabilities.argmax(axis=1)])
        found += list(probabilities.T)
        return pd.DataFrame(dict(zip(forecast_columns(pipeline), found, strict=True)))
    found.append(np.tile(np.arange(1, horizon + 1), len(samples)))
    lost = pipeline.transform.lost_rows
    values = to_units(
        outputs,
        np.stack([own.offset for _, own in scalers])[of],
        np.stack([own.scale for _, own in scalers])[of],
        transform=pipeline.transform,
        history=table.truth[samples[:, None] + np.arange(-lost, 0)],
    )
    around: list[np.ndarray] = []  # the ends of each interval, (samples, horizon, targets)
    if pipeline.intervals is not None:
        points = values[..., _order(pipeline)[0]] if pipeline.quantiles else values
        scales = _calibrated_scales(series, scalers, pipeline)
        of_samples = 1.0 if scales is None else scales[of]
        lower, upper = pipeline.intervals.around(points, pipeline.transform, of_samples)
        around = [end[..., i] for i in range(lower.shape[-1]) for end in (lower, upper)]
    for i in range(len(pipeline.targets)):
        of_target = values[:, :, i].reshape(len(samples) * horizon, -1)  # (rows, quantiles or 1)
        found += [of_target[:, at] for at in _order(pipeline)]
        found += [end[:, :, i].ravel() for end in around]
    return pd.DataFrame(dict(zip(forecast_columns(pipeline), found, strict=True)))


def _modes(pipeline: Pipeline, table: Table) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what gives windows their modes; None where the model reads none.

    Raises:
        ModelError: what they need is not installed.
    """
    if not pipeline.modes:
        return None
    if not emd_is_installed():
        rule = "the model splits its windows with EMD-signal, which is not installed"
        raise ModelError(rule, remedy=INSTALL)
    columns, modes = list(table.target_columns), pipeline.modes
    return lambda windows: modes_of(windows[:, :, columns], modes)


def _put_categories(
    inputs: np.ndarray, series: Series, table: Table, pipeline: Pipeline, samples: np.ndarray
) -> None:
    """Put the numbers of categories into what the model reads, and say which it does not know.

    Args:
        inputs: (rows, features), changed in place.
        series: that `table` was made of.
        table: has their codes.
        pipeline: of the model.
        samples: (samples,), the first rows that are forecast.
    """
    horizon = pipeline.horizon if table.known_columns else 0
    begins = np.zeros(len(inputs) + 1, np.int64)
    np.add.at(begins, samples - pipeline.window, 1)
    np.add.at(begins, samples + horizon, -1)
    is_read = begins.cumsum()[:-1] > 0
    unknown = []
    for at, codes in zip(table.category_columns, table.codes.T, strict=True):
        name = table.names[at]
        levels, known = series.levels[name], pipeline.categories[name]
        inputs[:, at] = numbered(codes, levels, known)
        if others := categories_in(codes[is_read], levels, known):
            unknown.append(f"{name} {shown(others)}")
    if unknown:
        text = f"the model was not trained on {'; '.join(unknown)}: read as unknown"
        warnings.warn(text, PredictionWarning, stacklevel=5)


def _future_rows(pipeline: Pipeline, future: RawTable) -> Series:
    """Return what a file of rows to come says of them; of some there may be nothing."""
    columns = pipeline.columns
    read = replace(
        columns, targets=[], features=columns.known_future, known_future=None, missing="ffill",
        categories=[name for name in columns.categories if name in (columns.known_future or [])],
        static=[], lags={}, calendar=[], wide=None,
        id=columns.id if columns.id in future.names else None,
    )  # fmt: skip
    return series_of(
        future, read, pipeline.frequency, day_first=pipeline.day_first, holidays=pipeline.holidays
    )


def _note_unknown(coming: Coming, firsts: np.ndarray) -> None:
    """Say so where no forecast begins, as what is known of the rows to come is missing."""
    short = np.where(firsts <= coming.ends, coming.ends - coming.lasts, 0)
    if short.any():
        at = int(short.argmax())
        of = "the last row" if short[at] == 1 else f"the last {short[at]} rows"
        of += coming.series.whose(at)
        text = f"no forecast after {of}: what is known of the rows to come is missing"
        warnings.warn(text, PredictionWarning, stacklevel=4)


def _without_gaps(
    series: Series, pipeline: Pipeline, samples: np.ndarray, of: np.ndarray, all_windows: bool
) -> np.ndarray:
    """Return which windows cross no gap, (samples,), as those that the model was trained on.

    Raises:
        DataError: all of them do.
    """
    whole, _ = without_gaps(series, pipeline.columns)
    read = windows_without_gaps(whole, samples, pipeline.window)
    needs = f"values in each of the {pipeline.window} rows that it reads"
    if not read.any():
        last = np.flatnonzero(~whole[: samples.max()])[-1]
        got = f"none in {series.place(int(last))}"
        raise refusal(series.path, "data.path", f"the model needs {needs}", got, "fill it in")
    left_out = np.setdiff1d(of, of[read])
    if len(left_out) and not all_windows:
        names = ", ".join(series.names[i] for i in left_out[:_NAMED].tolist())
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        text = f"no forecast for {names}{more}: the model needs {needs}"
        warnings.warn(text, PredictionWarning, stacklevel=5)
    return read


def _scalers(series: Series, table: Table, pipeline: Pipeline) -> list[tuple[Scaler, Scaler]]:
    """Return the scalers of inputs and outputs of each series.

    Where each series that was trained on has its own, a series of which there is none is scaled
    by the rows of its first window: those of later ones must not move the forecasts before them.
    """
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
        pairs = ((table.inputs, inputs), (table.targets, outputs))
        of_rows = [
            SeriesScaler.fit(pipeline.scale, values, given[None], of_all).of(0)
            for values, of_all in pairs
        ]
        found.append((of_rows[0].sharing(of_rows[1], table.lag_columns), of_rows[1]))
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        text = f"the model was not trained on {', '.join(unknown[:_NAMED])}{more}: scaled by the "
        warnings.warn(text + "rows of its first window", PredictionWarning, stacklevel=5)
    return found


def _calibrated_scales(
    series: Series, scalers: list[tuple[Scaler, Scaler]], pipeline: Pipeline
) -> np.ndarray | None:
    """Return what the radii of each series are multiplied with, (series, targets), if they differ.

    Of a series that was trained on it is the scale that the intervals were calibrated with, which
    a refit's is not; of another the scale that it is forecast with.
    """
    own, intervals = pipeline.own, pipeline.intervals
    if own is None or intervals is None or intervals.scales is None:
        return None
    known = dict(zip(own.outputs, intervals.scales, strict=True))
    of_all = zip(series.names, scalers, strict=True)
    return np.stack([known.get(name, scaler.scale) for name, (_, scaler) in of_all])


def forecast_columns(pipeline: Pipeline) -> list[str]:
    """Return the names of the columns of a forecast."""
    names = [] if pipeline.columns.id is None else [pipeline.columns.id]
    if pipeline.classes:
        said = [*pipeline.targets, *(f"p_{name}" for name in pipeline.classes)]
        return differing([*names, pipeline.columns.time or "row", *said])
    others = [pipeline.columns.time or "row", "step"]
    for target in pipeline.targets:
        quantiles = [pipeline.quantiles[at] for at in _order(pipeline)[1:]]
        others += [target, *(f"{target}_q{quantile:g}" for quantile in quantiles)]
        levels = pipeline.intervals.levels if pipeline.intervals else ()
        others += [f"{target}_{end}_{level:g}" for level in levels for end in ("lower", "upper")]
    return differing([*names, *others])


def _order(pipeline: Pipeline) -> list[int]:
    """Return the places of the quantiles, the median first; of a value its only place."""
    if not pipeline.quantiles:
        return [0]
    median = pipeline.quantiles.index(0.5)
    return [median, *(i for i in range(len(pipeline.quantiles)) if i != median)]


def _check_lengths(
    series: Series, ends: np.ndarray, pipeline: Pipeline, long_enough: np.ndarray
) -> None:
    """Refuse series of which none can be forecast, and say which of several cannot."""
    if long_enough.all():
        return
    columns, lengths = pipeline.columns, ends - series.bounds[:, 0]
    by_differences, targets = pipeline.transform.lost_rows, set(columns.targets)
    lost = max(
        [by_differences]
        + [max(v) + by_differences * (k in targets) for k, v in columns.lags.items()]
    )
    needs = f"{pipeline.window + lost} rows"
    if lost:
        needs += f" ({pipeline.window} to read, {lost} before them for lags or differences)"
    if not long_enough.any():
        got = f"{lengths.max()}"
        got += f" of {columns.resample}" if columns.resample else ""
        got += " in the longest series" if len(lengths) > 1 else ""
        if lengths.max() >= pipeline.window + lost:
            got += ", of which the first lack values that nothing before can fill in"
        rule = f"the model needs {needs}"
        raise refusal(series.path, "data.path", rule, got, "give it more rows")
    names = [name for name, enough in zip(series.names, long_enough, strict=True) if not enough]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    text = f"no forecast for {', '.join(names[:_NAMED])}{more}: the model needs {needs} in a series"
    warnings.warn(text, PredictionWarning, stacklevel=5)


def _note_lacking(series: Series, table: Table) -> None:
    """Say so where the last rows have no target: the forecast begins after them."""
    lacking = series.bounds[:, 1] - ends_with_targets(table.known, series.bounds)
    if not lacking.any():
        return
    at = int(lacking.argmax())
    whose = f" of {series.names[at]}" if len(series.names) > 1 else ""
    of = "the last row" if lacking[at] == 1 else f"the last {lacking[at]} rows"
    have, them = ("has", "it") if lacking[at] == 1 else ("have", "them")
    text = f"{of}{whose} {have} no target: filled in, and the forecast begins after {them}"
    warnings.warn(text, PredictionWarning, stacklevel=5)


def _note_ends(
    series: Series, ends: np.ndarray, pipeline: Pipeline, long_enough: np.ndarray
) -> None:
    """Say so where forecasts do not begin at the same time."""
    if not pipeline.columns.time:
        return
    assert series.times is not None
    each = [(series.times[ends[i] - 1], series.names[i]) for i in np.flatnonzero(long_enough)]
    (first, earliest), (last, latest) = min(each), max(each)
    if first < last:
        text = f"the series end at different times, {earliest} at {show_time(first)} and {latest} "
        text += f"at {show_time(last)}; each forecast begins after its own last row"
        warnings.warn(text, PredictionWarning, stacklevel=5)


def _times(series: Series, of: np.ndarray, place: np.ndarray, horizon: int) -> pd.DatetimeIndex:
    """Return the times of rows, (samples, horizon) counted in their series; also after its end."""
    every = []
    for i in range(len(series.names)):
        times = series.times_of(i)
        every.append(times.append(following(times, series.frequency, horizon)))
    starts = bounds_of([len(times) for times in every])[:, 0]
    together = every[0].append(every[1:])
    return pd.DatetimeIndex(together[(starts[of][:, None] + place).ravel()])
