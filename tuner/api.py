"""The Python API: `search`, `load_study` and the `Study` that they return."""

from __future__ import annotations

import contextlib
import html
import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import InputError, Interrupted, RunError, TunerError
from tuner.experiment import Experiment
from tuner.launch import check_workers, choose_workers, search_watched, sync_command, warnings
from tuner.outputs import check_file, check_model_folder, written_whole
from tuner.processes import stopped_by_signals
from tuner.progress.display import PipeConsole
from tuner.progress.reporters import PlainProgress
from tuner.progress.watcher import Watcher
from tuner.results.advice import in_the_way
from tuner.studies import check_journal, check_study_name, with_data
from tuner.winner import KeptModel

if TYPE_CHECKING:
    import pandas as pd

    from tuner.journal.records import StudyRecord, TrialRecord
    from tuner.prediction import Model

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

_SCORES = ("search", "mean", "std")

_PATH = {"argument": "path", "or_else": "remove it first"}


@dataclass(frozen=True)
class Best:
    """The winning configuration, and the validation scores that speak for it."""

    trial: int | None  # None where the untuned default won, and no trial is the same
    name: str  # trial 3, or default LSTM
    params: dict[str, Any]  # what was searched
    hyperparameters: dict[str, Any]  # all of them, the fixed ones too
    metric: str
    search_score: float | None  # the best of many: optimistic; None where it is no trial
    mean: float | None  # retrained on fresh seeds; None where that was not done
    std: float | None


@dataclass(frozen=True)
class Report:
    """A page that needs nothing else; a notebook shows it in a frame."""

    study: str  # whose
    html: str

    def save(self, path: str | Path) -> None:
        """Write the page to a file; an earlier report of this study is replaced.

        Raises:
            InputError: there is something else, no folder for it, or its ending is none of these.
        """
        from tuner.report import page

        path = Path(path)
        of_it = partial(page.is_report, study=self.study)
        check_file(path, f"report of {self.study}", page.ENDINGS, of_it, **_PATH)
        with written_whole(path) as new:
            new.write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        page = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:80vh;border:0"></iframe>'


class Study:
    """One search and its result, as the journal had it when this was made.

    `tuner.search` and `load_study` make it.
    """

    def __init__(
        self, record: StudyRecord, location: str, model_folder: Path | None = None
    ) -> None:
        """Take a study as it is read; of the winner's model, where there is one, a copy is kept."""
        self._record, self._location = record, location
        self._kept: Path | None = None  # the folder of the winner's model
        if model_folder is not None:
            self._kept = self._new_folder()
            shutil.copytree(model_folder, self._kept, dirs_exist_ok=True)

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return self._record.name

    @property
    def experiment(self) -> Experiment:
        """What was searched."""
        return self._record.experiment

    @property
    def best(self) -> Best:
        """The winner: the best mean over its retrainings, or without any the best trial.

        It is the untuned default where that has the best.

        Raises:
            RunError: no trial is complete.
        """
        from tuner.results.winner import find_winner

        winner = find_winner(self._record)
        finalist = winner.finalist
        return Best(
            trial=winner.number,
            name=winner.name,
            params=winner.params,
            hyperparameters=winner.hyperparameters(self._record),
            metric=self.experiment.objective.metric,
            search_score=winner.search_score,
            mean=finalist.mean if finalist else None,
            std=finalist.std if finalist else None,
        )

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial, by its number.

        Columns: `status`, `score` (NaN where there is none), every searched hyperparameter,
        `epochs`, `seconds` of training, `weights` of the model, `latency_ms` of one prediction in
        torch, `seed` of the training, `repeat_of` (the trial whose outcome this one took) and the
        `reason` of a failure.
        """
        import pandas as pd

        rows = [self._row(trial) for trial in self._record.trials]
        index = pd.Index([trial.number for trial in self._record.trials], name="trial")
        columns = ["status", "score", *self.experiment.search_space]
        columns += ["epochs", "seconds", "weights", "latency_ms", "seed", "repeat_of", "reason"]
        table = pd.DataFrame(rows, index=index, columns=columns)
        numbers = dict.fromkeys(("score", "seconds", "latency_ms"), "float64")
        numbers |= dict.fromkeys(("weights", "repeat_of"), "Int64")
        return table.astype(numbers)

    @property
    def finalists(self) -> pd.DataFrame:
        """A row for each retrained configuration, the best mean first, by its trial's number.

        The untuned default is one of them; its number is missing where no trial is the same.

        Columns: every searched hyperparameter; `search`, the score that the search saw; `mean`,
        `std` and `scores` of the retrainings.
        """
        import pandas as pd

        found = self.summary()["finalists"]
        rows = [
            f["params"]
            | {"search": f["search_score"]}
            | {k: f[k] for k in ("mean", "std", "scores")}
            for f in found
        ]
        index = pd.Index([f["trial"] for f in found], name="trial", dtype="Int64")
        return pd.DataFrame(
            rows, index=index, columns=[*self.experiment.search_space, *_SCORES, "scores"]
        )

    @property
    def test(self) -> dict[str, Any] | None:
        """The winner's and the baselines' scores on the test part; None before it is opened."""
        test: dict[str, Any] | None = self.summary()["test"]
        return test

    @property
    def verdict(self) -> str | None:
        """What the test part says, in one sentence; None before it is opened."""
        verdict: str | None = self.summary()["verdict"]
        return verdict

    def summary(self) -> dict[str, Any]:
        """Return the result as plain data, as `tuner show --json` prints it."""
        from tuner.results.summary import summarize

        return summarize(self._record)

    def report(self) -> Report:
        """Return the result as a page with pictures."""
        from tuner.report.page import report

        return Report(self.name, report(self._record))

    def export(self, path: str | Path) -> Path:
        """Write the best configuration as an experiment file, JSON where the name says so.

        `Experiment.load` and `tuner train` read it. An earlier export of this study is replaced.

        Raises:
            InputError: there is something else, no folder for it, or its ending is none of these.
            RunError: no trial is complete.
        """
        from tuner.results.export import ENDINGS, exported, is_export, is_json, render

        path = Path(path)
        of_it = partial(is_export, study=self.name)
        check_file(path, f"export of {self.name}", ENDINGS, of_it, **_PATH)
        best = exported(self._record, path.absolute().parent, path.name)
        with written_whole(path) as new:
            new.write_text(render(best, is_json(path)), encoding="utf-8")
        return path

    @cached_property
    def model(self) -> Model:
        """The winner's model, ready to predict: see `predict`.

        It is at hand after the search that opened the test part; else it is trained again when it
        is first asked for. Where the winner was refitted, it is the model of training and
        validation part. `export_model` writes it.

        Raises:
            InputError: the data cannot be read any more, or has changed.
            RunError: no trial is complete, or the recorded score did not come out again.
        """
        from tuner.prediction import load_model

        if self._kept is None:
            folder = self._new_folder()
            self.export_model(folder)
            self._kept = folder
        return load_model(self._kept)

    def predict(self, data: pd.DataFrame | str | Path, all_windows: bool = False) -> pd.DataFrame:
        """Predict with the winner's model, in the data's units; see `Model.predict`.

        Args:
            data: a table or a file with the columns that were searched on. A forecast begins
                after its last row.
            all_windows: whether a forecast begins after every row that can be.

        Raises:
            DataError: the data is not what the model was trained on.
            InputError, RunError: as `model` does.
        """
        return self.model.predict(data, all_windows)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The test rows: the truth, and what the winner's model says of them.

        Columns are those of `predict`, and before each target the truth (`sales_true`, `sales`).
        A forecast has `horizon` rows for each window that was scored.

        Raises:
            InputError: the data cannot be read any more, or has changed.
            RunError: the test part is not open yet, or another configuration won since.
        """
        from tuner.results.predictions import test_predictions

        return test_predictions(self._record, lambda: self.model)

    def export_model(self, folder: str | Path, *, ensemble: bool = False) -> Model:
        """Train the winner again, write its model into a folder, and return it ready to predict.

        It is what `tuner export STUDY --model FOLDER` writes: where the winner was refitted, the
        model of training and validation part.

        Args:
            folder: an empty or a new one, or that of an earlier model.
            ensemble: whether it is the mean of the models of all of the winner's seeds.

        Raises:
            InputError: the folder holds something else, the data has changed, or the winner was
                trained once, and that is no ensemble.
            RunError: no trial is complete, or the recorded score did not come out again.
        """
        from tuner.errors import RunError
        from tuner.prediction import load_model
        from tuner.results.export import write_model
        from tuner.winner import retrained

        path = Path(folder)
        check_model_folder("folder", path)
        training = retrained(self._record, ensemble=ensemble)
        if training.reproduced is False:
            why = "; ".join(training.differences()) or "is the CPU of another kind?"
            raise RunError(f"the recorded score did not come out again: {why}")
        write_model(training, path)
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

    def _new_folder(self) -> Path:
        """Make a folder that is removed when nobody holds this study any more."""
        folder = Path(tempfile.mkdtemp(prefix="lstm-tuner-model-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

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

    def _row(self, trial: TrialRecord) -> dict[str, Any]:
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


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    """Search an experiment to its end, or go on where an earlier call or `tuner run` stopped.

    It is what `tuner run` does, and its journal is the same: each goes on with what the other
    began.

    Args:
        experiment: what is searched, the path of its file, or the same as nested dicts.
        strategy: a name of `tuner strategies`, with its defaults; by default the experiment's,
            which keeps its options also where it is named here.
        data: in place of the experiment's `data.path`: another file, or a table. A table is kept
            once as a Parquet file in the folder `data` beside the journal (`studies/data`), so
            that the study can be resumed and its configuration exported and trained again.
        trials: how many are trained; by default the experiment's `budget.trials`.
        seed: of the search; by default the experiment's.
        study: the study's name; `<experiment>-<strategy>-<seed>` by default.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.
        workers: how many trials run at a time; by default as many as there is room for. The
            result does not depend on it.
        executor: `local`, `ray` or `ray://HOST:PORT`.
        tracking: whether trials are copied to MLflow while they run.
        progress: whether a line is printed for every trial. Without, notes go to the logger
            `tuner` as information.
        open_test: whether the winner is scored on the test part at the end, which happens once
            for a study; a later call may do it.
        reopen_test: whether it is scored again after the search has gone on and another
            configuration wins; that is recorded, and the score is not one of unseen rows.

    Returns:
        The study as its journal has it.

    Raises:
        InputError: experiment, data, journal or an argument cannot be used; nothing was begun.
        RunError: every trial failed.
        Interrupted: Ctrl-C; what was finished is kept, and the same call goes on.
    """
    import optuna

    from tuner.executors.choice import choose_executor
    from tuner.journal.storage import journal_location
    from tuner.orchestrator import default_study_name

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_workers(workers, "workers", "workers=1")
    study = check_study_name(study)
    check_journal(journal)
    experiment = with_data(experiment, data, journal)
    experiment = _with_arguments(experiment, strategy, trials, seed)
    if reopen_test and not open_test:
        raise InputError("reopen_test: opens the test part, got open_test=False; leave one out")
    name, stop = study or default_study_name(experiment), threading.Event()
    choice = choose_executor(executor, experiment.resources, lambda text: watcher.note(text))
    n_workers = choose_workers(workers, experiment, choice)
    watcher: Watcher = _Logged()
    if progress:
        console = PipeConsole(highlight=False, soft_wrap=True)
        watcher = PlainProgress(experiment, console, n_workers, stopping=stop.is_set)
    with KeptModel(watcher.note) as kept:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # no other one gets signals
                stack.enter_context(stopped_by_signals(stop, process_ends=False))
            record, behind = search_watched(
                experiment,
                watcher,
                name=name,
                journal=journal,
                n_workers=n_workers,
                executor=executor,
                make_executor=choice.make,
                warnings=lambda record: [
                    *warnings(workers, record.experiment, choice),
                    *in_the_way(record),
                ],
                tracking=tracking,
                kept=kept,
                stop=stop,
                open_test=open_test,
                reopen_test=reopen_test,
            )
        if tracking and not behind:
            kept.log(record, None, sync_command(name, journal))
        return Study(record, journal_location(name, journal), kept.folder)


class _Logged(Watcher):
    """Shows nothing; what is noted goes to the logger `tuner`."""

    def note(self, text: str) -> None:
        """Log a line."""
        logging.getLogger("tuner").info(text)


def load_study(name: str, journal: str | None = None) -> Study:
    """Return a study as its journal has it now, also while its search runs.

    Args:
        name: the study's.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.

    Raises:
        InputError: there is no such study, or its journal cannot be read.
    """
    from tuner.journal.storage import journal_location
    from tuner.studies import read

    return Study(read(name, journal), journal_location(name, journal))


def _with_arguments(
    experiment: Experiment, strategy: str | None, trials: int | None, seed: int | None
) -> Experiment:
    values: dict[str, Any] = {
        "strategy": None if strategy in (None, experiment.strategy.name) else {"name": strategy},
        "budget.trials": trials,
        "seed": seed,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return experiment.changed(given) if given else experiment
