"""Refit: the winner and the untuned default, trained again on training and validation part.

A validation part is held back to choose a configuration and a number of epochs. Once both are
chosen, its rows are the newest that a forecast can learn from (Goodfellow, Bengio and Courville
2016, *Deep Learning*, algorithm 7.2). What a refit is follows from the study's record alone: the
same seeds, the median of the best epochs that were found. So nothing of it is kept in the journal
before its test score is.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.coordination.observer import Observer
from tuner.coordination.records import StudyRecord, TrialRecord
from tuner.coordination.seeds import training_name
from tuner.coordination.work import run_jobs, train_job, without_score
from tuner.data.dataset import Prepared
from tuner.data.preparing import check_same, prepare
from tuner.executors.base import Executor
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState, TrainJob
from tuner.results.judged import has_refit
from tuner.results.trained_models import Models
from tuner.results.winner import Winner

__all__ = ["Refit", "Refitted", "best_epochs", "epochs_of", "refit", "refit_epochs"]


@dataclass(frozen=True)
class Refitted:
    """A configuration that was trained again, once for each of its seeds."""

    epochs: int
    models: Models  # in the order of its repeats; () where a training failed
    failed: str | None = None  # why


@dataclass(frozen=True)
class Refit:
    """What was trained on training and validation part together."""

    data: Prepared  # without a test row
    winner: Refitted
    default: Refitted | None = None  # None where that is the winner, or none was trained


def best_epochs(outcome: Outcome) -> int | None:
    """Return after how many epochs a training was best; with rolling origins, that of its last."""
    if outcome.best_epoch is None or not outcome.history:
        return None
    begun = next(e.epoch for e in outcome.history if e.fold == outcome.history[-1].fold)
    return outcome.best_epoch - begun + 1


def epochs_of(runs: Sequence[TrialRecord]) -> int | None:
    """Return the median of the best epochs of some trainings; a half is rounded up."""
    known = [best_epochs(run.outcome) for run in runs if run.outcome is not None]
    found = [epochs for epochs in known if epochs is not None]
    return math.floor(statistics.median(found) + 0.5) if found else None


def refit_epochs(record: StudyRecord, winner: Winner) -> int | None:
    """Return how long the winner is trained again; None where its model is the search's.

    Where it has a test score, it is what was tested: the same epochs, or none.
    """
    test = record.test
    if test is not None and winner.was_tested(test):
        return int(test["refit"]["epochs"]) if has_refit(test) else None
    return epochs_of(winner.runs) if record.experiment.refits else None


def refit(
    record: StudyRecord,
    winner: Winner,
    default_runs: Sequence[TrialRecord],
    folder: Path,
    executor: Executor,
    observer: Observer,
    stop: threading.Event,
) -> Refit | None:
    """Train the winner again, and the default, on all rows before the test part.

    Args:
        record: the study, with its search and finalists done.
        winner: of it.
        default_runs: the default's trainings, where it is not the winner.
        folder: where the arrays are written; no test row is among them.
        executor: trains.
        observer: is told what is trained, and what has ended.
        stop: once set, no further training begins.

    Returns:
        The models; None where the winner's best epochs are not known.

    Raises:
        DataError: the data cannot be read any more, or has changed.
        Interrupted: `stop` was set; the same call does it anew, and comes to the same.
        RunError: the machine took a training away, again and again.
    """
    experiment = record.experiment
    epochs = epochs_of(winner.runs)
    if epochs is None:
        return None
    default_epochs = epochs_of(default_runs)
    data = prepare(experiment, folder, all_data=True)
    check_same(data.facts, record.data["sha256"])
    names: dict[str, str] = {}
    jobs: list[TrainJob] = []
    for runs, count in ((winner.runs, epochs), (default_runs, default_epochs or 0)):
        for run in runs if count else ():
            jobs.append(_job(experiment, data, run, count))
            names[jobs[-1].key] = training_name(run.role, run.number, run.configuration, run.repeat)
    observer.note(_announced(len(jobs), epochs, default_epochs))
    n_done = 0

    def ended(key: str, outcome: Outcome) -> None:
        nonlocal n_done
        n_done += 1
        how = _why(outcome) or "trained on both parts"
        observer.note(f"[{n_done}/{len(jobs)}] {names[key]} {how}")

    outcomes = run_jobs(executor, jobs, stop=stop, note=observer.note, ended=ended, may_fail=True)
    n_winner = len(winner.runs)
    own = jobs[n_winner:]
    return Refit(
        data.of(winner.params),
        _refitted(epochs, jobs[:n_winner], outcomes[:n_winner]),
        _refitted(default_epochs, own, outcomes[n_winner:]) if own and default_epochs else None,
    )


def _job(experiment: Experiment, data: Prepared, run: TrialRecord, epochs: int) -> TrainJob:
    key, params = f"refit {run.role} {run.number}", dict(run.params)
    folds = data.of(params).folds
    job = train_job(experiment, folds, key, params, run.seed, keep_weights=True)
    # A limit of time is the search's: the number of epochs is known here.
    return without_score(dataclasses.replace(job, timeout_s=None), epochs)


def _refitted(epochs: int, jobs: Sequence[TrainJob], outcomes: Sequence[Outcome]) -> Refitted:
    models = [
        (job, outcome.weights)
        for job, outcome in zip(jobs, outcomes, strict=True)
        if outcome.weights is not None
    ]
    failed = next((why for outcome in outcomes if (why := _why(outcome))), None)
    return Refitted(epochs, () if failed else models, failed)


def _why(outcome: Outcome) -> str | None:
    """Return why a training failed; None where it did not."""
    if outcome.state is OutcomeState.COMPLETE:
        return None
    return f"failed: {outcome.reason or 'it came to nothing'}"


def _announced(n_models: int, epochs: int, default_epochs: int | None) -> str:
    models = "1 model" if n_models == 1 else f"{n_models} models"
    whose, counts = "the winner", f"{epochs}"
    if default_epochs is not None:
        whose, counts = "the winner and the default", f"{epochs} and {default_epochs}"
    unit = "epoch" if counts == "1" else "epochs"
    return (
        f"training {whose} again, on training and validation part together: {models}, "
        f"{counts} {unit}"
    )
