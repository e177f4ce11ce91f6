"""`tuner check` and `tuner run`, and how options of a command change its experiment."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from rich.markup import escape
from rich.table import Table

from tuner.cli.app import Check, Run, key_and_value
from tuner.cli.remote import client_of, server_option
from tuner.data.prepared import check_data
from tuner.errors import ExperimentError, InputError
from tuner.experiment import Experiment, Override, parse_value
from tuner.experiment.cells import named_code
from tuner.experiment.yaml_files import read_mapping
from tuner.journal.records import StudyRecord
from tuner.orchestrator import (
    SearchOptions,
    journal_option,
    run_search,
    start_notes,
    sync_command,
)
from tuner.planning.check import (
    STRATEGY,
    check_experiment,
    fixed_of,
    strategy_in_words,
    with_options,
)
from tuner.planning.check import Check as Checked
from tuner.progress.display import console, show_advice
from tuner.progress.reporters import make_reporter, reported_end
from tuner.results.export import is_export, train_command
from tuner.signals import stopped_by_signals
from tuner.user_code import is_allowed
from tuner.winner import KeptModel


def load(
    path: Path, strategy: str | None, set_: list[str] | None, **options: tuple[str, Any]
) -> Experiment:
    """Load an experiment with options of a command laid over it.

    Args:
        path: of the experiment.
        strategy: value of `--strategy`; one that the file names keeps the options of the file.
        set_: values of `--set`, `KEY=VALUE`, which are applied last.
        options: name of an option -> its key and value; None stands for an option not given.

    Raises:
        ExperimentError: the file or an option breaks a rule.
        InputError: it is a file of data, or a `--set` is not KEY=VALUE.
    """
    if path.suffix.lower() in (".csv", ".parquet") and path.is_file():
        written = f"{path.stem}.yaml"  # as `tuner init` does
        command = f"tuner init {shlex.quote(str(path))}"
        remedy = f"give {written}" if Path(written).exists() else f"write `{command}` first"
        raise InputError("is a data file, not an experiment", where=path, remedy=remedy)
    if strategy is not None and strategy != own_strategy(path).get("name"):
        options = {"strategy": ("strategy", {"name": strategy}), **options}
    given = [Override(k, v, f"--{name}") for name, (k, v) in options.items() if v is not None]
    for text in set_ or []:
        key, value = key_and_value("--set", text, "budget.epochs=50, say")
        given.append(Override(key, parse_value(value, f"--set {key}"), "--set"))
    return Experiment.load(path, given)


def own_strategy(path: Path) -> dict[str, Any]:
    """Return the block `strategy` of an experiment file as it is written; {} without one."""
    with contextlib.suppress(ExperimentError):  # which loading it reports
        block = read_mapping(path, "experiment file").get("strategy")
        return block if isinstance(block, dict) else {}
    return {}


def _replaced_strategy(path: Path, experiment: Experiment) -> str | None:
    """Return the strategy of the file with its options, if the search uses another one."""
    name = (own := own_strategy(path)).pop("name", None)
    return None if name in (None, experiment.strategy.name) else with_options(str(name), own)


def check(command: Check) -> None:
    """Validate an experiment, its space and its data; print what a search would do."""
    path, client = command.experiment, client_of(command)
    experiment = load(path, command.strategy, command.set_)
    if client is None:
        found = check_experiment(experiment, check_data(experiment).facts)
    else:
        answer = Checked.from_json(client.check(experiment)["check"])
        found = replace(answer, fixed=fixed_of(experiment))  # there, defaults are given as well
    console.print(f"[bold]{escape(experiment.name)}[/] ({escape(str(path))})\n", soft_wrap=True)
    replaced = _replaced_strategy(path, experiment)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in found.rows:
        table.add_row(f"  {name}", escape(text))
        if name == STRATEGY and replaced:
            table.add_row("  replaces", escape(f"{replaced} of the file"))
    console.print(table)
    _show_space(found)
    show_advice(found.advice)
    verdict = "It can run, but see above" if found.suspect else "Nothing is wrong"
    then = ["run" if found.space else "train", str(path)]
    if command.strategy is not None and found.space:
        then += ["--strategy", command.strategy]
    then += [word for text in command.set_ or [] for word in ("--set", text)]
    if is_allowed():
        then.append("--allow-code")
    where = server_option(command.server) if found.space else ""
    line = f"{verdict}. Next: [bold]{escape(f'tuner {shlex.join(then)}{where}')}[/]"
    console.print(f"\n{line}", soft_wrap=True)


def _show_space(found: Checked) -> None:
    size = found.size
    count = "infinitely many" if size is None else f"{size:,}"
    if found.space:
        console.print(f"\n  search space ({count} configuration{'s' * (size != 1)})")
    else:
        console.print("\n  search space: none, every hyperparameter is fixed")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, domain, begins in found.space:
        table.add_row(f"    {name}", escape(domain), escape(begins))
    console.print(table)
    fixed = ", ".join([*found.fixed, "the rest at its default"])
    console.print(f"  fixed: {fixed}", soft_wrap=True)


def run(command: Run) -> None:
    """Search, here or at a service, and show the events and the result."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    client = client_of(command)
    experiment = load(
        command.experiment,
        command.strategy,
        command.set_,
        trials=("budget.trials", command.trials),
        timeout=("budget.timeout", command.timeout),
        seed=("seed", command.seed),
        asynchronous=("asynchronous", command.asynchronous or None),
    )
    options = SearchOptions(
        study=command.study,
        journal=command.journal,
        start_from=tuple(command.from_ or ()),
        workers=command.workers,
        executor=command.executor or "local",
        tracking=command.tracking,
        register=command.register,
        open_test=command.test,
        reopen_test=command.reopen_test,
    )
    options.check()
    if client is not None:
        from tuner.cli import remote_run  # with requests

        remote_run.run(command, experiment, options, client)
        return
    stop = threading.Event()
    reporter = make_reporter(stop.is_set, as_json=command.json)
    with reported_end(reporter), KeptModel(reporter.note) as kept:
        with stopped_by_signals(stop), reporter:
            keeps = kept if options.tracking else None
            notes = partial(_notes, experiment, command)
            record, copied = run_search(
                experiment, options, reporter, keeps, stop=stop, notes=notes
            )
        to_sync = sync_command(record.name, options.journal, options.register)
        own_code = named_code(experiment.to_dict()) is not None
        commands = next_commands(
            record.name,
            journal_option(options.journal),
            own_code=own_code,
            tracking=options.tracking,
            to_sync=None if copied else to_sync,
        )
        reporter.result(record, commands)
        if options.tracking and copied:
            kept.log(record, options.register, to_sync)


def _notes(experiment: Experiment, command: Run, record: StudyRecord) -> Iterator[str]:
    yield from start_notes(experiment, record)
    yield from notes_of_command(experiment, command, record)


def notes_of_command(experiment: Experiment, command: Run, record: StudyRecord) -> Iterator[str]:
    """Yield notes on what the options of a command change, or do not change."""
    if replaced := _replaced_strategy(command.experiment, experiment):
        yield f"{strategy_in_words(record.experiment)} in place of the file's {replaced}"
    n_trials, trained = experiment.budget.trials, len(record.trained)
    if n_trials is not None and trained > n_trials:
        option = "--trials" if command.trials == n_trials else "budget.trials"
        yield f"{trained} trials are trained already: {option} {n_trials} changes nothing"


def next_commands(
    name: str, where: str, *, own_code: bool, tracking: bool = False, to_sync: str | None = None
) -> list[tuple[str, str]]:
    """Return the commands to type after a search, each with a remark.

    Args:
        name: of the study.
        where: the option that names its journal or service, after a space; or nothing.
        own_code: whether the winner has a cell from user code.
        tracking: whether MLflow here has the study.
        to_sync: the command that copies what MLflow lacks; None if it lacks nothing.
    """
    study = f"{shlex.quote(name)}{where}"
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
