"""The test rows of a study with the truth and what its model says of them, as a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from tuner.coordination.records import StudyRecord
from tuner.data.dataset import Prepared
from tuner.data.reference import PairsRef, SeriesRef
from tuner.data.scratch import scratch_folder
from tuner.data.source import read_table
from tuner.data.test_part import open_test_part
from tuner.errors import RunError
from tuner.prediction import Model
from tuner.prediction.naming import differing
from tuner.results.judged import has_refit
from tuner.results.winner import find_winner

__all__ = ["test_predictions"]


def test_predictions(record: StudyRecord, get_model: Callable[[], Model]) -> pd.DataFrame:
    """Return what a study's model says of the test part, which the study has opened before.

    Args:
        record: the study.
        get_model: gives that of its winner, where it is the one that was tested.

    Returns:
        What `Model.predict` returns: of a forecast `horizon` rows for each window that was scored;
        of sequences a row for each one that was. Beside each target's column is the truth, in a
        column with `_true` behind the name.

    Raises:
        DataError: the data cannot be read any more, or has changed.
        RunError: the test part was not opened yet, or not for this winner.
    """
    test = record.test
    if test is None or not find_winner(record).was_tested(test):
        whose = "yet" if test is None else "for the configuration that wins now"
        reopen = "open_test=True" if test is None else "reopen_test=True"
        raise RunError(
            f"study {record.name!r} has not opened its test part {whose}; search with {reopen}"
        )
    model = get_model()
    params, table = find_winner(record).params, read_table(record.experiment.data)
    with scratch_folder() as folder:
        opened = open_test_part(
            record.experiment, folder, sha256=record.data["sha256"], all_data=has_refit(test)
        ).of(params)
        ref = opened.folds[-1].with_window(params.get("window"))
        samples = ref.evaluate_samples()
        truth = ref.truth_of(samples)
        if isinstance(ref, SeriesRef):
            found = model.predict_at(table, samples)
            if opened.facts.classes:
                return _beside(found, model, [np.array(opened.facts.classes, object)[truth]])
            return _beside(found, model, list(truth.reshape(-1, truth.shape[-1]).T))
        found = _of_part(model.predict_at(table), opened, samples, record)
        if opened.facts.classes:
            return _beside(found, model, [np.array(opened.facts.classes, object)[truth]])
        if isinstance(ref, PairsRef):
            written = table.written(model.pipeline.targets)
            return _beside(found, model, [column[samples] for column in written.values()])
        return _beside(found, model, list(truth[:, 0].T))


def _of_part(
    predicted: pd.DataFrame, opened: Prepared, samples: np.ndarray, record: StudyRecord
) -> pd.DataFrame:
    """Return the predictions of some sequences, in their order; of every step all of their rows."""
    if not record.experiment.task.each_step:
        return predicted.iloc[samples].reset_index(drop=True)
    names = [opened.name_of(sample) for sample in samples.tolist()]
    ids = pd.Index(predicted[record.experiment.data.id].astype(str))
    at = pd.Index(names).get_indexer(ids)
    rows = np.argsort(np.where(at < 0, len(names), at), kind="stable")[: (at >= 0).sum()]
    return predicted.iloc[rows].reset_index(drop=True)


def _beside(predicted: pd.DataFrame, model: Model, truth: list[np.ndarray]) -> pd.DataFrame:
    """Put the truth of each target before what is predicted of it."""
    pipeline, targets = model.pipeline, model.pipeline.targets
    first = len(predicted.columns) - len(targets) - len(pipeline.classes)
    if pipeline.task == "forecast":
        first = 2 + (pipeline.columns.id is not None)  # series, time, step
    width = (len(predicted.columns) - first) // len(targets)  # columns of a target
    for i, (target, values) in enumerate(zip(targets, truth, strict=True)):
        *_, name = differing([*predicted.columns, f"{target}_true"])
        predicted.insert(first + i * (width + 1), name, values)
    return predicted
