"""`tuner check` and `tuner run`, and how options of a command change its experiment."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from rich.markup import escape
from rich.table import Table

from tuner.cli.app import Check, Run, key_and_value
from tuner.data.prepared import Facts, check_data
from tuner.data.profile import SUSPECTS
from tuner.errors import ExperimentError, InputError
from tuner.experiment import Domain, Experiment, Override, parse_value, space_size
from tuner.experiment.cells import named_code
from tuner.experiment.hyperparameters import WIDTH
from tuner.experiment.yaml_files import read_mapping
from tuner.journal.records import StudyRecord
from tuner.metrics import COSTS
from tuner.orchestrator import (
    SearchOptions,
    journal_option,
    run_search,
    start_notes,
    sync_command,
)
from tuner.progress.display import console, counted, show_advice
from tuner.progress.reporters import make_reporter, reported_end
from tuner.results.advice import advice_on_budget, advice_on_data, why_not_exportable
from tuner.results.export import is_export, train_command
from tuner.signals import stopped_by_signals
from tuner.user_code import is_allowed
from tuner.winner import KeptModel

_MOST_NAMES = 12  # of columns or classes


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
    return None if name in (None, experiment.strategy.name) else _with_options(str(name), own)


def check(command: Check) -> None:
    """Validate an experiment, its space and its data; print what a search would do."""
    path = command.experiment
    experiment = load(path, command.strategy, command.set_)
    facts = check_data(experiment).facts
    console.print(f"[bold]{escape(experiment.name)}[/] ({escape(str(path))})\n", soft_wrap=True)
    replaced = _replaced_strategy(path, experiment)
    rows = [*_of_data(experiment, facts), *_of_search(experiment, replaced)]
    if problem := why_not_exportable(experiment, facts):
        rows.append(("export", problem))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in rows:
        table.add_row(f"  {name}", escape(text))
    console.print(table)
    _show_space(experiment)
    advice = [*advice_on_data(experiment, facts), *advice_on_budget(experiment)]
    show_advice(advice)
    suspect = advice or {"constant", *SUSPECTS} & {what for what, _ in facts.notes}
    verdict = "It can run, but see above" if suspect else "Nothing is wrong"
    then = ["run" if experiment.search_space else "train", str(path)]
    if command.strategy is not None and experiment.search_space:
        then += ["--strategy", command.strategy]
    then += [word for text in command.set_ or [] for word in ("--set", text)]
    if is_allowed():
        then.append("--allow-code")
    line = f"{verdict}. Next: [bold]{escape(f'tuner {shlex.join(then)}')}[/]"
    console.print(f"\n{line}", soft_wrap=True)


def _of_data(experiment: Experiment, facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield what a check shows of data and task: names and texts."""
    data = experiment.data
    kept = facts.frequency if data.resample is None else None  # else a note has the frequencies
    frequency = f", frequency {kept}" if kept else ""
    yield "data", f"{facts.path.name}: {counted(facts.rows, 'row')}{frequency}"
    yield "target", ", ".join(facts.targets)
    if facts.classes:
        yield "classes", _listed(facts.classes)
    yield "features", _listed(facts.features)
    yield from facts.notes
    if experiment.task.kind == "forecast":
        yield "preparation", _preparation(experiment, "transform", "scale")
    elif data.text is None and data.tokens is None:
        yield "preparation", _preparation(experiment, "scale")
    yield "task", _task(experiment)
    for part in facts.parts:
        when = "" if part.first is None else f"  {part.first} to {part.last}"
        yield part.name, f"{counted(part.count, part.unit)}{when}"


def _of_search(experiment: Experiment, replaced: str | None) -> Iterator[tuple[str, str]]:
    """Yield what a check shows of the search; `replaced` is the strategy of the file."""
    yield "strategy", strategy_in_words(experiment)
    if replaced:
        yield "replaces", f"{replaced} of the file"
    budget, objective = experiment.budget, experiment.objective
    count = "" if budget.trials is None else f"{budget.trials} "
    limits = f"{count}trials of up to {budget.epochs} epochs, patience {budget.patience}"
    if budget.timeout:
        limits += f", no new trial after {budget.timeout:.0f} s"
    if budget.trial_timeout:
        limits += f", none longer than {budget.trial_timeout:.0f} s"
    if budget.stagnation:
        limits += f", until {budget.stagnation} generations bring no better score"
    yield "budget", limits
    if experiment.asynchronous:
        yield "asynchronous", "workers never wait, and no two searches are alike"
    metric = objective.metric.removeprefix(f"{objective.direction} ")
    goal = f"{objective.direction} the validation set's {metric}"
    if objective.cost is not None:
        goal += f", and minimize the {objective.cost} ({COSTS[objective.cost]})"
    yield "objective", goal
    pruner = experiment.pruner.model_dump(exclude={"name"})
    yield "pruner", _with_options(experiment.pruner.name, pruner)


def strategy_in_words(experiment: Experiment) -> str:
    """Return a strategy with the options that apply."""
    options = experiment.strategy.model_dump(exclude={"name"}, exclude_none=True)
    if options.get("topology") == "star":
        del options["neighbors"]  # the ring's
    return _with_options(experiment.strategy.name, options)


def _with_options(name: str, options: dict[str, Any]) -> str:
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{name} ({shown})" if shown else name


def _preparation(experiment: Experiment, *names: str) -> str:
    """Return how the data is prepared at the start of the search, and which of it is searched."""
    given = [f"{name} {experiment.given(name)}" for name in names]
    if experiment.data.scale_by == "series":
        given[-1] += " of each series separately"
    searched = list(experiment.preparation({}))
    return ", ".join(given) + (f"; searched: {', '.join(searched)}" if searched else "")


def _task(experiment: Experiment) -> str:
    task = experiment.task
    match task.kind:
        case "forecast":
            quantiles = f", quantiles {_listed(map(str, task.quantiles))}" if task.quantiles else ""
            ahead = f"{counted(task.horizon, 'row')} ahead"
            return f"{ahead} from the {_window(experiment)} before{quantiles}"
        case "regress":
            return "a number of every sequence"
        case "classify" if task.of_coming_class:
            return f"the class of the coming row from the {_window(experiment)} before"
        case "classify":
            return "a class of every sequence"
        case "label":
            return "a class of every step of a sequence"
        case "translate":
            return "a text of a text"
        case "regress_steps":
            return "a number of every step of a sequence"


def _window(experiment: Experiment) -> str:
    if domain := experiment.search_space.get("window"):
        return f"{min(domain.bounds())} to {max(domain.bounds())}"
    return str(experiment.given("window"))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMES])}, ... ({len(names)})"


def _show_space(experiment: Experiment) -> None:
    size = space_size(experiment.search_space)
    count = "infinitely many" if size is None else f"{size:,}"
    if experiment.search_space:
        console.print(f"\n  search space ({count} configuration{'s' * (size != 1)})")
    else:
        console.print("\n  search space: none, every hyperparameter is fixed")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    start = experiment.start()
    for name, domain in experiment.search_space.items():
        begins = f"starts at {start[name]}" if name in start else "start left to the strategy"
        table.add_row(f"    {name}", escape(_domain(domain)), escape(begins))
    console.print(table)
    given = experiment.hyperparameters.model_dump(exclude_unset=True)
    searched = set(experiment.search_space)
    if any(map(WIDTH.fullmatch, searched)):
        searched |= {"hidden_size", "num_layers"}
    fixed = [
        f"{name} {str(v).lower() if isinstance(v, bool) else v}"
        for name, v in given.items()
        if name not in searched
    ]
    console.print(f"  fixed: {', '.join([*fixed, 'the rest at its default'])}", soft_wrap=True)


def _domain(domain: Domain) -> str:
    if domain.type == "categorical":
        return "one of " + ", ".join(str(c) for c in domain.choices)
    step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
    return f"{domain.low} to {domain.high}{step}{', log scale' if domain.log else ''}"


def run(command: Run) -> None:
    """Search, and show the events and the result."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
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
        executor=command.executor,
        tracking=command.tracking,
        register=command.register,
        open_test=command.test,
        reopen_test=command.reopen_test,
    )
    options.check()
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
        commands = _next_commands(record.name, options, None if copied else to_sync, own_code)
        reporter.result(record, commands)
        if options.tracking and copied:
            kept.log(record, options.register, to_sync)


def _notes(experiment: Experiment, command: Run, record: StudyRecord) -> Iterator[str]:
    yield from start_notes(experiment, record)
    if replaced := _replaced_strategy(command.experiment, experiment):
        yield f"{strategy_in_words(record.experiment)} in place of the file's {replaced}"
    n_trials, trained = experiment.budget.trials, len(record.trained)
    if n_trials is not None and trained > n_trials:
        option = "--trials" if command.trials == n_trials else "budget.trials"
        yield f"{trained} trials are trained already: {option} {n_trials} changes nothing"


def _next_commands(
    name: str, options: SearchOptions, to_sync: str | None, own_code: bool
) -> list[tuple[str, str]]:
    study = f"{shlex.quote(name)}{journal_option(options.journal)}"
    path = Path("best.yaml")
    if path.exists() and not is_export(path, name):  # of another study
        path = Path(f"{name}-best.yaml")
    commands = [
        (f"tuner export {study} -o {shlex.quote(str(path))}", ""),
        (train_command(str(path), own_code=own_code), ""),
    ]
    if options.tracking:
        commands.insert(0, (f"tuner ui {study}", ""))
    if to_sync is not None:
        commands.insert(0, (to_sync, "MLflow lacks trials"))
    return commands
