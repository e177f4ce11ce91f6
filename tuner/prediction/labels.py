"""Values and classes of sequences, and of their steps."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from tuner.data.drawing import rows_of
from tuner.data.sequence_table import SequenceTable
from tuner.data.tables import RawTable, refusal
from tuner.data.units import to_units
from tuner.data.vocabulary import UNKNOWN, first_outside, number_classes
from tuner.prediction.naming import differing
from tuner.prediction.notes import PredictionWarning
from tuner.prediction.pipeline import Pipeline
from tuner.prediction.running import Runner

__all__ = ["label_columns", "predict_sequences", "say_unknown", "softmax"]

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
    column = raw.written([target])[target]
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
            text = f"column {target!r} must hold classes that the model knows, got {name!r} in "
            remedy = f"{place}; leave the column out to predict all the same"
            raise refusal(raw.path, "data.target", text + remedy)


def _check_steps(table: SequenceTable, bounds: np.ndarray, steps: int | None) -> None:
    """Refuse sequences of another length than those that the model can read."""
    lengths = np.diff(bounds)[:, 0]
    if steps is None or not len(others := np.flatnonzero(lengths != steps)):
        return
    first = others[0]
    text = f"sequences must have {steps} steps, as the model has a linear path, got "
    text += f"{lengths[first]} in {str(table.names[first])!r}"
    more = f" and {len(others) - 1} more of other lengths" if len(others) > 1 else ""
    raise refusal(table.path, "data.id", f"{text}{more}; leave them out")


def _check_numbers(pipeline: Pipeline, table: SequenceTable, tokens: np.ndarray) -> None:
    """Refuse tokens that are no numbers below the vocabulary's size, where they must be."""
    size = pipeline.columns.vocabulary_size
    if size is None or (row := first_outside(tokens, size)) is None:
        return
    place = table.raw.place_of(int(table.rows[row]))
    text = f"column {pipeline.columns.tokens!r} must hold numbers from 0 to {size - 1}, got "
    text += f"{tokens[row]!r} in {place}; the model knows no other tokens: correct it"
    raise refusal(table.path, "data.tokens", text)


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
