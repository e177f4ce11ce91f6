"""What a search of an experiment would do, and what stands in its way: `tuner check` as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuner.data.prepared import Facts
from tuner.data.profile import SUSPECTS
from tuner.experiment import Domain, Experiment, space_size
from tuner.experiment.hyperparameters import WIDTH
from tuner.metrics import COSTS
from tuner.progress.display import counted
from tuner.results.advice import (
    Advice,
    advice_on_budget,
    advice_on_data,
    why_not_exportable,
)

STRATEGY = "strategy"
"""The row of the strategy."""

_MOST_NAMES = 12  # of columns or classes


@dataclass(frozen=True)
class Check:
    """What a search would do."""

    rows: Sequence[tuple[str, str]]  # of data, search and export: names and texts
    size: int | None  # configurations of the search space; None if infinitely many
    space: Sequence[tuple[str, str, str]]  # hyperparameters: names, domains, where they start
    fixed: Sequence[str]  # hyperparameters that are given and not searched, with their values
    advice: Sequence[Advice]
    suspect: bool  # whether data or settings deserve a look before the search

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON; `from_json` reads it."""
        return asdict(self) | {"advice": [advice.to_json() for advice in self.advice]}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Check:
        """Read a check by `to_json`, of a service."""
        advice = [Advice(each["key"], each["text"], each["blocks"]) for each in raw["advice"]]
        rows = [(name, text) for name, text in raw["rows"]]
        space = [(name, domain, start) for name, domain, start in raw["space"]]
        return cls(rows, raw["size"], space, raw["fixed"], advice, raw["suspect"])


def check_experiment(experiment: Experiment, facts: Facts) -> Check:
    """Return what a search would do.

    Args:
        experiment: the experiment.
        facts: of its data, by `tuner.data.prepared.check_data`.
    """
    rows = [*_of_data(experiment, facts), *_of_search(experiment)]
    if problem := why_not_exportable(experiment, facts):
        rows.append(("export", problem))
    advice = [*advice_on_data(experiment, facts), *advice_on_budget(experiment)]
    suspects = {"constant", *SUSPECTS} & {what for what, _ in facts.notes}
    return Check(
        rows=rows,
        size=space_size(experiment.search_space),
        space=_of_space(experiment),
        fixed=fixed_of(experiment),
        advice=advice,
        suspect=bool(advice or suspects),
    )


def _of_space(experiment: Experiment) -> list[tuple[str, str, str]]:
    start, found = experiment.start(), []
    for name, domain in experiment.search_space.items():
        begins = f"starts at {start[name]}" if name in start else "start left to the strategy"
        found.append((name, _domain(domain), begins))
    return found


def fixed_of(experiment: Experiment) -> list[str]:
    """Return the hyperparameters that are given and not searched, with their values."""
    given = experiment.hyperparameters.model_dump(exclude_unset=True)
    searched = set(experiment.search_space)
    if any(map(WIDTH.fullmatch, searched)):
        searched |= {"hidden_size", "num_layers"}
    return [
        f"{name} {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in given.items()
        if name not in searched
    ]


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


def _of_search(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield what a check shows of the search: names and texts."""
    yield STRATEGY, strategy_in_words(experiment)
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
    yield "pruner", with_options(experiment.pruner.name, pruner)


def strategy_in_words(experiment: Experiment) -> str:
    """Return a strategy with the options that apply."""
    options = experiment.strategy.model_dump(exclude={"name"}, exclude_none=True)
    if options.get("topology") == "star":
        del options["neighbors"]  # the ring's
    return with_options(experiment.strategy.name, options)


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """Return the name of a strategy or pruner with options."""
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


def _domain(domain: Domain) -> str:
    if domain.type == "categorical":
        return "one of " + ", ".join(str(c) for c in domain.choices)
    step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
    return f"{domain.low} to {domain.high}{step}{', log scale' if domain.log else ''}"
