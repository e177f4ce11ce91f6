"""`tuner run`."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.check import strategy_in_words
from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.launching.earlier import read_earlier
from tuner.launching.names import check_journal, check_study_name
from tuner.launching.searching import search_watched
from tuner.launching.stopping import stopped_by_signals
from tuner.launching.typed import journal_option, sync_command
from tuner.launching.winner import KeptModel, check_register
from tuner.launching.workers import check_workers, choose_workers, warnings
from tuner.results.advice import in_the_way
from tuner.results.export import is_export, train_command
from tuner.watching.choosing import make_watcher, told_how_it_ends

if TYPE_CHECKING:
    from tuner.coordination.records import StudyRecord

__all__ = ["run"]


def run(
    experiment: Experiment,
    *,
    study: str | None,
    journal: str | None,
    workers: int | None,
    trials: int | None = None,
    executor: str,
    tracking: bool,
    register: str | None = None,
    open_test: bool,
    reopen_test: bool = False,
    as_json: bool,
    replaced: str | None = None,
    from_: Sequence[str] = (),
) -> None:
    """Search, and show what happens and what comes of it.

    `trials` is what `--trials` gave, `replaced` the file's strategy where another one searches,
    `from_` names what a new study begins from.
    """
    check_workers(workers)
    study = check_study_name(study)
    check_journal(journal)
    if register is not None:
        check_register(register, tracking)
    if reopen_test and not open_test:
        raise InputError("--reopen-test: opens the test part, got --no-test as well; leave one out")

    import optuna

    from tuner.executors.choosing import choose_executor
    from tuner.orchestrator import default_study_name

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choice = choose_executor(executor, experiment.resources, lambda text: watcher.note(text))
    n_workers = choose_workers(workers, experiment, choice)
    name = study or default_study_name(experiment)
    earlier = read_earlier(from_, experiment, name, journal)

    def said_at_first(record: StudyRecord) -> list[str]:
        said = _nothing_searched(experiment) + warnings(workers, record.experiment, choice)
        if replaced is not None:
            said.append(f"{strategy_in_words(record.experiment)} in place of the file's {replaced}")
        said += record.begun_from
        return said + _fewer_trials(record, experiment, trials) + in_the_way(record)

    stop = threading.Event()
    watcher = make_watcher(experiment, n_workers, stop.is_set, as_json)
    with told_how_it_ends(watcher), KeptModel(watcher.note) as kept:
        with stopped_by_signals(stop), watcher:
            record, behind = search_watched(
                experiment,
                watcher,
                name=name,
                journal=journal,
                n_workers=n_workers,
                executor=executor,
                make_executor=choice.make,
                warnings=said_at_first,
                tracking=tracking,
                kept=kept if tracking else None,
                stop=stop,
                earlier=earlier,
                open_test=open_test,
                reopen_test=reopen_test,
            )
        to_sync = sync_command(name, journal, register) if behind else None
        watcher.result(
            record,
            _next_commands(
                name, journal, tracking, to_sync, named_code(experiment.to_dict()) is not None
            ),
        )
        if tracking and not behind:
            again = sync_command(name, journal, register)
            kept.log(record, register, again)


def _nothing_searched(experiment: Experiment) -> list[str]:
    if experiment.search_space:
        return []
    text = "there is no search space: the one configuration is trained on seeds of this study"
    known = experiment.recorded is not None
    return [text + ("; `tuner train` reproduces the recorded score" if known else "")]


def _fewer_trials(record: StudyRecord, experiment: Experiment, given: int | None) -> list[str]:
    n_trials, trained = experiment.budget.trials, len(record.trained)
    if n_trials is None or trained <= n_trials:
        return []
    what = f"--trials {n_trials}" if given == n_trials else f"budget.trials {n_trials}"
    return [f"{trained} trials are trained already: {what} changes nothing"]


def _next_commands(
    name: str, journal: str | None, tracking: bool, to_sync: str | None, own_code: bool
) -> list[tuple[str, str]]:
    study = f"{shlex.quote(name)}{journal_option(journal)}"
    path = Path("best.yaml")
    if path.exists() and not is_export(path, name):  # of another study
        path = Path(f"{name}-best.yaml")
    commands = [
        (f"tuner export {study} -o {shlex.quote(str(path))}", ""),
        (train_command(str(path), own_code=own_code), ""),
    ]
    if tracking:
        commands.insert(0, (f"tuner ui {study}", ""))
    if to_sync is not None:
        commands.insert(0, (to_sync, "MLflow lacks trials"))
    return commands
