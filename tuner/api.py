"""The Python API: `search`, `load_study` and the `Study` that they return."""

from __future__ import annotations

import contextlib
import html
import logging
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from tuner.coordination.finalists import find_winner
from tuner.errors import InputError, Interrupted, RunError, TunerError
from tuner.experiment import Experiment
from tuner.journal.records import StudyRecord, TrialRecord
from tuner.orchestrator import SearchOptions, run_search, sync_command
from tuner.outputs import check_file, check_model_folder, temporary_folder, written_whole
from tuner.prediction import Model, load_model
from tuner.progress.display import PipeConsole
from tuner.progress.reporters import PlainReporter, Reporter
from tuner.report import page
from tuner.results import export
from tuner.results.summary import Summary, summarize
from tuner.results.test_score import test_predictions
from tuner.signals import stopped_by_signals
from tuner.studies import read, with_changes, with_data
from tuner.winner import KeptModel, retrained

__all__ = [
    "Best",
    "Experiment",
    "InputError",
    "Interrupted",
    "Report",
    "RunError",
    "Study",
    "TunerError",
    "load_study",
    "search",
]

_PATH = {"argument": "path", "or_else": "remove it first"}


@dataclass(frozen=True)
class Best:
    """The winning configuration and its validation scores, in the unit of the metric.

    Attributes:
        trial: number of the trial, from 0. None if the untuned default won and no trial has the
            same configuration.
        name: `trial 3`, or `default LSTM`.
        params: values of the searched hyperparameters.
        hyperparameters: values of all hyperparameters, searched and fixed.
        metric: name of the metric, such as `rmse`.
        search_score: score in the search. It is the best of many and therefore optimistic. None
            if the configuration is no trial.
        mean: mean score of the retrainings on fresh seeds. None without retrainings.
        std: standard deviation of these scores. None with fewer than two.
    """

    trial: int | None
    name: str
    params: dict[str, Any]
    hyperparameters: dict[str, Any]
    metric: str
    search_score: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Report:
    """The result as one HTML page without other files. A notebook shows it in a frame.

    Attributes:
        study: name of the study.
        html: the page.
    """

    study: str
    html: str

    def save(self, path: str | Path) -> None:
        """Write the page to a file. An earlier report of this study is replaced.

        Args:
            path: a new file, or an earlier report; `.html` or `.htm`.

        Raises:
            InputError: the path has another ending, its folder does not exist, or it is a file
                of another kind.
        """
        path, of_it = Path(path), partial(page.is_report, study=self.study)
        check_file(path, f"report of {self.study}", page.ENDINGS, of_it, **_PATH)
        with written_whole(path) as new:
            new.write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        source = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{source}" style="width:100%;height:80vh;border:0"></iframe>'


class Study:
    """One search and its result: a snapshot of the journal.

    `search` and `load_study` return it.
    """

    def __init__(self, record: StudyRecord, model_folder: Path | None = None) -> None:
        """Keep a record and, if given, a copy of the winner's model folder."""
        self._record = record
        self._kept: Path | None = None  # the folder of the winner's model
        if model_folder is not None:
            self._kept = temporary_folder(self, "lstm-tuner-model-")
            shutil.copytree(model_folder, self._kept, dirs_exist_ok=True)

    @property
    def name(self) -> str:
        """The name, as commands such as `tuner show` take it."""
        return self._record.name

    @property
    def experiment(self) -> Experiment:
        """The experiment that was searched."""
        return self._record.experiment

    @property
    def best(self) -> Best:
        """The winner: the configuration with the best mean score of its retrainings.

        Without retrainings it is the best trial. The untuned default can win too.

        Raises:
            RunError: no trial is complete.
        """
        winner = find_winner(self._record)
        return Best(
            trial=winner.number,
            name=winner.name,
            params=winner.params,
            hyperparameters=winner.hyperparameters(self._record),
            metric=self.experiment.objective.metric,
            search_score=winner.search_score,
            mean=winner.mean if winner.repeats else None,
            std=winner.std,
        )

    @property
    def trials(self) -> pd.DataFrame:
        """All trials: (trials, columns), indexed by the number of the trial.

        Columns: `status`; `score` in the unit of the metric, NaN without one; every searched
        hyperparameter; `epochs` trained; `seconds` of training; `weights`, the number of learned
        parameters; `latency_ms`, milliseconds to predict one sample in torch; `seed` of the
        training; `repeat_of`, the earlier trial with the same configuration, whose outcome this
        one takes; `reason` of a failure.
        """
        rows = [_row(trial) for trial in self._record.trials]
        index = pd.Index([trial.number for trial in self._record.trials], name="trial")
        columns = ["status", "score", *self.experiment.search_space]
        columns += ["epochs", "seconds", "weights", "latency_ms", "seed", "repeat_of", "reason"]
        table = pd.DataFrame(rows, index=index, columns=columns)
        numbers = dict.fromkeys(("score", "seconds", "latency_ms"), "float64")
        numbers |= dict.fromkeys(("weights", "repeat_of"), "Int64")
        return table.astype(numbers)

    @property
    def finalists(self) -> pd.DataFrame:
        """The retrained configurations, best mean first: (finalists, columns).

        The index is the number of the trial. The untuned default is one of the rows; its index
        is missing unless a trial has the same configuration.

        Columns: every searched hyperparameter; `search`, the score in the search; `mean`, `std`
        and `scores`, the list, of the retrainings. Scores are in the unit of the metric.
        """
        found = self._summary.finalists
        rows = [
            {**f.params, "search": f.search_score, "mean": f.mean, "std": f.std, "scores": f.scores}
            for f in found
        ]
        index = pd.Index([f.trial for f in found], name="trial", dtype="Int64")
        columns = [*self.experiment.search_space, "search", "mean", "std", "scores"]
        return pd.DataFrame(rows, index=index, columns=columns)

    @property
    def test(self) -> dict[str, Any] | None:
        """Scores of the winner and the baselines on the test set, as `tuner show --json` has them.

        None before the test set is evaluated.
        """
        test: dict[str, Any] | None = self._summary.to_json()["test"]
        return test

    @property
    def verdict(self) -> str | None:
        """Whether the winner beats the default and the baselines, in one sentence.

        None before the test set is evaluated.
        """
        return self._summary.verdict

    def summary(self) -> dict[str, Any]:
        """Return the result as nested dicts and lists, as `tuner show --json` prints it."""
        return self._summary.to_json()

    @property
    def _summary(self) -> Summary:
        return summarize(self._record)

    def report(self) -> Report:
        """Return the result as an HTML page with pictures."""
        return Report(self.name, page.report(self._record))

    def export(self, path: str | Path) -> Path:
        """Write the best configuration as an experiment file, and return its path.

        `Experiment.load` and `tuner train` read it. An earlier export of this study is replaced.

        Args:
            path: a new file, or an earlier export; `.yaml`, `.yml` or `.json`.

        Raises:
            InputError: the path has another ending, its folder does not exist, or it is a file
                of another kind.
            RunError: no trial is complete.
        """
        path, of_it = Path(path), partial(export.is_export, study=self.name)
        check_file(path, f"export of {self.name}", export.ENDINGS, of_it, **_PATH)
        best = export.exported(self._record, path.absolute().parent, path.name)
        with written_whole(path) as new:
            new.write_text(export.render(best, export.is_json(path)), encoding="utf-8")
        return path

    @cached_property
    def model(self) -> Model:
        """The winner's model, ready to predict.

        After a search that evaluated the test set it is there at once. Otherwise the first access
        trains it. If the winner was refitted, this is the model of training and validation rows.

        Raises:
            InputError: the data cannot be read, or has changed since the search.
            RunError: no trial is complete, or the recorded score is not reproduced.
        """
        if self._kept is None:
            folder = temporary_folder(self, "lstm-tuner-model-")
            self.export_model(folder)
            self._kept = folder
        return load_model(self._kept)

    def predict(self, data: pd.DataFrame | str | Path, all_windows: bool = False) -> pd.DataFrame:
        """Predict with the winner's model, in the units of the data.

        Args:
            data: a data frame, (rows, columns), or a file, with the columns of the search. A
                forecast starts after the last row.
            all_windows: whether to forecast after every row that has a full window before it.

        Returns:
            (rows, columns), as `tuner.prediction.Model.predict` returns it.

        Raises:
            DataError: the data does not match the data of the search.
            InputError: the data of the search cannot be read, or has changed.
            RunError: no trial is complete, or the recorded score is not reproduced.
        """
        return self.model.predict(data, all_windows)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The truth and the winner's predictions on the test set, in the units of the data.

        The columns are those of `predict`, with the truth before each target (`sales_true`,
        `sales`). Forecasts have `horizon` rows per window, sequences one row each or one per step.

        Raises:
            InputError: the data cannot be read, or has changed since the search.
            RunError: the test set is not evaluated yet, or another configuration wins now.
        """
        return test_predictions(self._record, lambda: self.model)

    def export_model(self, folder: str | Path, *, ensemble: bool = False) -> Model:
        """Train the winner again, write its model folder, and return the model.

        `tuner export STUDY --model FOLDER` writes the same. If the winner was refitted, this is
        the model of training and validation rows.

        Args:
            folder: a new or empty folder, or that of an earlier model, which is replaced.
            ensemble: whether to write the mean of all repeats of the winner as one model.

        Raises:
            InputError: the folder holds other files, the data has changed since the search, or
                an ensemble is asked of a winner with a single training.
            RunError: no trial is complete, or the recorded score is not reproduced.
        """
        path = Path(folder)
        check_model_folder("folder", path)
        export.write_model(retrained(self._record, ensemble=ensemble), path)
        return load_model(path)

    def __repr__(self) -> str:
        return f"Study({self.name!r}: {self._standing()})"

    def _repr_html_(self) -> str:
        parts = [f"<strong>{html.escape(self.name)}</strong>: {html.escape(self._standing())}"]
        if self._record.best is not None:
            params = ", ".join(f"{k}={_short(v)}" for k, v in self.best.params.items())
            parts.append(f"<code>{html.escape(params)}</code>")
        if self.verdict:
            parts.append(html.escape(self.verdict))
        return "<br>".join(parts)

    def _standing(self) -> str:
        n_trials = f"{len(self._record.trained)} trials trained"
        if self._record.best is None:
            return n_trials
        best = self.best
        scores = [] if best.search_score is None else [_short(best.search_score)]
        if best.mean is not None:
            scores.append(f"retrained {_short(best.mean)}" if scores else _short(best.mean))
            scores[-1] += f" ± {_short(best.std)}" if best.std is not None else ""
        return f"{n_trials}, best {best.name}, {best.metric} {', '.join(scores)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(trial: TrialRecord) -> dict[str, Any]:
    outcome = trial.outcome
    return dict(trial.params) | {
        "status": trial.status.value,
        "score": trial.value,
        "epochs": len(outcome.history) if outcome else 0,
        "seconds": outcome.seconds if outcome else None,
        "weights": outcome.n_weights if outcome else None,
        "latency_ms": outcome.latency_ms if outcome else None,
        "seed": trial.seed,
        "repeat_of": trial.repeat_of,
        "reason": outcome.reason if outcome else None,
    }


def search(
    experiment: Experiment | Mapping[str, Any] | str | Path,
    strategy: str | None = None,
    *,
    data: pd.DataFrame | str | Path | None = None,
    trials: int | None = None,
    seed: int | None = None,
    study: str | None = None,
    journal: str | None = None,
    workers: int | None = None,
    executor: str = "local",
    tracking: bool = True,
    progress: bool = True,
    open_test: bool = True,
    reopen_test: bool = False,
) -> Study:
    """Search an experiment to its end, or resume a search that stopped earlier.

    `tuner run` does the same with the same journal, so that each resumes searches of the other.

    Args:
        experiment: an experiment, the path of its YAML or JSON file, or nested dicts with the
            same keys.
        strategy: a name that `tuner strategies` lists, with default options. The default is the
            experiment's strategy; naming that one keeps its options.
        data: a file or a data frame, (rows, columns), in place of the experiment's `data.path`.
            A data frame is written once, as Parquet, to `data/` beside the journal
            (`studies/data`), so that the study can be resumed and its winner trained again.
        trials: number of trials, 1 to 1000000; by default the experiment's `budget.trials`.
        seed: seed of the search, 0 to 4294967295; by default the experiment's.
        study: name of the study; by default `<experiment>-<strategy>-<seed>`.
        journal: path of a file, or URL of a database; by default `studies/STUDY.journal`.
        workers: number of trials that run at a time, at least 1; by default one per core, up to
            the strategy's population or batch. The result does not depend on it, unless the
            experiment is asynchronous.
        executor: `local`, `ray`, or `ray://HOST:PORT`.
        tracking: whether trials are copied to MLflow while they run.
        progress: whether to print a line per trial. If not, notes are logged by the logger
            `tuner` at level INFO.
        open_test: whether to evaluate the winner on the test set after the search. This happens
            once per study; a later call can do it.
        reopen_test: whether to evaluate again after an extended search has another winner. The
            journal records it, since the test set is then no longer unseen.

    Returns:
        The study, as the journal has it at the end.

    Raises:
        InputError: the experiment, the data, the journal or an argument is refused. Nothing was
            started.
        RunError: every trial failed.
        Interrupted: Ctrl-C. Finished trials are kept, and the same call resumes the search.
    """
    options = SearchOptions(
        study=study,
        journal=journal,
        workers=workers,
        executor=executor,
        tracking=tracking,
        open_test=open_test,
        reopen_test=reopen_test,
    )
    options.check(in_python=True)
    experiment = with_changes(with_data(experiment, data, journal), strategy, trials, seed)
    return _searched(experiment, options, progress)


def _searched(experiment: Experiment, options: SearchOptions, progress: bool) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stop = threading.Event()
    reporter: Reporter = _Logged()
    if progress:
        console = PipeConsole(highlight=False, soft_wrap=True)
        reporter = PlainReporter(console, stopping=stop.is_set)
    with KeptModel(reporter.note) as kept:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # no other one gets signals
                stack.enter_context(stopped_by_signals(stop, process_ends=False))
            record, copied = run_search(experiment, options, reporter, kept, stop=stop)
        if options.tracking and copied:
            kept.log(record, None, sync_command(record.name, options.journal))
        return Study(record, kept.folder)


class _Logged(Reporter):
    """Prints nothing; notes go to the logger `tuner`."""

    def note(self, text: str) -> None:
        logging.getLogger("tuner").info(text)


def load_study(name: str, journal: str | None = None) -> Study:
    """Read a study from its journal, as it is now. Its search may be running.

    Args:
        name: name of the study.
        journal: path of a file, or URL of a database; by default `studies/STUDY.journal`.

    Raises:
        InputError: the study does not exist, or its journal cannot be read.
    """
    return Study(read(name, journal))
