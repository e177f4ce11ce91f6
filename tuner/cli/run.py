"""`tuner check` and `tuner run`."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from tuner.cli.overrides import load, replaced_strategy
from tuner.data.prepared import check_data
from tuner.data.quality import SUSPECTS
from tuner.experiment import Domain, Experiment, space_size
from tuner.experiment.cells import named_code
from tuner.experiment.hyperparameters import WIDTH
from tuner.launch import journal_option, run_search, sync_command
from tuner.metrics import COSTS
from tuner.orchestrator import SearchOptions
from tuner.processes import stopped_by_signals
from tuner.progress.display import console, counted, show_advice
from tuner.progress.reporters import make_reporter, reported_end
from tuner.results.advice import advice_on_budget, advice_on_data, why_not_exportable
from tuner.results.export import is_export, train_command
from tuner.user_code import is_allowed
from tuner.winner import KeptModel

if TYPE_CHECKING:
    from tuner.journal.records import StudyRecord

__all__ = ["check", "run", "strategy_in_words"]

_MOST_NAMES = 12  # of columns or classes are shown


def check(path: Path, strategy: str | None, set_: list[str]) -> None:
    """Validate an experiment, its space and its data; print what would be searched."""
    experiment = load(path, strategy, set_)
    facts = check_data(experiment).facts
    data = experiment.data
    console.print(f"[bold]{escape(experiment.name)}[/] ({escape(str(path))})\n", soft_wrap=True)

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    kept = facts.frequency if data.resample is None else None  # a note says what is resampled
    frequency = f", frequency {kept}" if kept else ""
    table.add_row("  data", f"{escape(facts.path.name)}: {counted(facts.rows, 'row')}{frequency}")
    table.add_row("  target", escape(", ".join(facts.targets)))
    if facts.classes:
        table.add_row("  classes", escape(_listed(facts.classes)))
    table.add_row("  features", escape(_listed(facts.features)))
    for what, how_many in facts.notes:
        table.add_row(f"  {what}", escape(how_many))
    if experiment.task.kind == "forecast":
        table.add_row("  preparation", escape(_preparation(experiment, "transform", "scale")))
    elif data.text is None and data.tokens is None:
        table.add_row("  preparation", _preparation(experiment, "scale"))
    table.add_row("  task", _task(experiment))
    for part in facts.parts:
        when = "" if part.first is None else f"  {part.first} to {part.last}"
        table.add_row(f"  {part.name}", f"{counted(part.count, part.unit)}{when}")
    table.add_row("  strategy", strategy_in_words(experiment))
    if replaced := replaced_strategy(path, experiment):
        table.add_row("  replaces", escape(f"{replaced} of the file"))
    budget = experiment.budget
    limit = f", no new trial after {budget.timeout:.0f} s" if budget.timeout else ""
    if budget.trial_timeout:
        limit += f", none longer than {budget.trial_timeout:.0f} s"
    if budget.stagnation:
        limit += f", until {budget.stagnation} generations bring no better score"
    count = "" if budget.trials is None else f"{budget.trials} "
    trials = f"{count}trials of up to {budget.epochs} epochs, patience {budget.patience}"
    table.add_row("  budget", trials + limit)
    if experiment.asynchronous:
        table.add_row("  asynchronous", "workers never wait, and no two searches are alike")
    metric = experiment.objective.metric.removeprefix(f"{experiment.objective.direction} ")
    goal = f"{experiment.objective.direction} the validation set's {escape(metric)}"
    if (cost := experiment.objective.cost) is not None:
        goal += f", and minimize the {cost} ({COSTS[cost]})"
    table.add_row("  objective", goal)
    pruner = experiment.pruner.model_dump(exclude={"name"})
    table.add_row("  pruner", _with_options(experiment.pruner.name, pruner))
    if problem := why_not_exportable(experiment, facts):
        table.add_row("  export", problem)
    console.print(table)
    _show_space(experiment)
    advice = [*advice_on_data(experiment, facts), *advice_on_budget(experiment)]
    show_advice(advice)
    then = ["run" if experiment.search_space else "train", str(path)]
    if strategy is not None and experiment.search_space:
        then += ["--strategy", strategy]
    then += [word for text in set_ for word in ("--set", text)]
    if is_allowed():
        then.append("--allow-code")
    command = escape(f"tuner {shlex.join(then)}")
    told = advice or {"constant", *SUSPECTS} & {what for what, _ in facts.notes}
    said = "It can run, but see above" if told else "Nothing is wrong"
    console.print(f"\n{said}. Next: [bold]{command}[/]", soft_wrap=True)


def strategy_in_words(experiment: Experiment) -> str:
    """Return a strategy with the options that it heeds."""
    options = experiment.strategy.model_dump(exclude={"name"}, exclude_none=True)
    if options.get("topology") == "star":
        del options["neighbors"]  # the ring's
    return _with_options(experiment.strategy.name, options)


def _with_options(name: str, options: dict[str, Any]) -> str:
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{name} ({shown})" if shown else name


def _preparation(experiment: Experiment, *names: str) -> str:
    """Say what is done to the data; of what is searched what `data` says, with which it begins."""
    given = [f"{name} {experiment.given(name)}" for name in names]
    if experiment.data.scale_by == "series":
        given[-1] += " of each series its own"
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
    """Say how many rows are read."""
    if domain := experiment.search_space.get("window"):
        return f"{min(domain.bounds())} to {max(domain.bounds())}"
    return str(experiment.given("window"))


def _listed(names: Iterable[str]) -> str:
    """Write names one after another, of many the first and how many there are."""
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


def run(
    experiment: Experiment, options: SearchOptions, *, as_json: bool, replaced: str | None = None
) -> None:
    """Search, and show what happens and the result.

    `replaced` is the strategy of the file, where another one searches.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def notes(record: StudyRecord) -> list[str]:
        found = list(record.begun_from)
        if replaced is not None:
            used = strategy_in_words(record.experiment)
            found.insert(0, f"{used} in place of the file's {replaced}")
        return _nothing_searched(experiment) + found + _fewer_trials(record, experiment)

    stop = threading.Event()
    reporter = make_reporter(stop.is_set, as_json=as_json)
    with reported_end(reporter), KeptModel(reporter.note) as kept:
        with stopped_by_signals(stop), reporter:
            keeps = kept if options.tracking else None
            record, copied = run_search(
                experiment, options, reporter, keeps, stop=stop, notes=notes
            )
        to_sync = sync_command(record.name, options.journal, options.register)
        own_code = named_code(experiment.to_dict()) is not None
        commands = _next_commands(record.name, options, None if copied else to_sync, own_code)
        reporter.result(record, commands)
        if options.tracking and copied:
            kept.log(record, options.register, to_sync)


def _nothing_searched(experiment: Experiment) -> list[str]:
    if experiment.search_space:
        return []
    text = "there is no search space: the one configuration is trained on seeds of this study"
    known = experiment.recorded is not None
    return [text + ("; `tuner train` reproduces the recorded score" if known else "")]


def _fewer_trials(record: StudyRecord, experiment: Experiment) -> list[str]:
    n_trials, trained = experiment.budget.trials, len(record.trained)
    if n_trials is None or trained <= n_trials:
        return []
    return [f"{trained} trials are trained already: budget.trials {n_trials} changes nothing"]


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
