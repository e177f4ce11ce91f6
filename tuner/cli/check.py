"""`tuner check`."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from tuner.cli.display import console
from tuner.cli.overrides import load
from tuner.data.preparing import check_data
from tuner.experiment import Domain, Experiment, space_size

__all__ = ["check"]


def check(path: Path, strategy: str | None, set_: list[str]) -> None:
    """Validate an experiment, its space and its data; print what would be searched."""
    experiment = load(path, strategy, set_)
    series, parts = check_data(experiment)
    task, data = experiment.task, experiment.data
    console.print(f"[bold]{experiment.name}[/] ({escape(str(path))})\n", soft_wrap=True)

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    frequency = f", frequency {series.frequency}" if series.frequency else ""
    table.add_row("  data", f"{escape(series.path.name)}: {_rows(series.rows)}{frequency}")
    table.add_row("  target", escape(", ".join(data.targets)))
    table.add_row("  features", escape(", ".join(series.features)))
    table.add_row("  preparation", f"transform {data.transform}, scale {data.scale}")
    table.add_row("  task", f"{_rows(task.horizon)} ahead from the {task.window} before")
    for name, (first, end) in parts.named().items():
        when = ""
        if series.times is not None:
            when = f"  {_day(series.times[first])} to {_day(series.times[end - 1])}"
        table.add_row(f"  {name}", f"{_rows(end - first)}{when}")
    options = experiment.strategy.model_dump(exclude={"name"})
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    table.add_row("  strategy", f"{experiment.strategy.name} ({shown})")
    budget = experiment.budget
    limit = f", no new trial after {budget.timeout:.0f} s" if budget.timeout else ""
    trials = f"{budget.trials} trials of up to {budget.epochs} epochs, patience {budget.patience}"
    table.add_row("  budget", trials + limit)
    goal = f"{experiment.objective.direction} the validation part's {experiment.objective.metric}"
    table.add_row("  objective", goal)
    console.print(table)
    _show_space(experiment)
    then = "run" if experiment.search_space else "train"
    console.print(
        f"\nNothing is wrong. Next: [bold]tuner {then} {escape(shlex.quote(str(path)))}[/]"
    )


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
        table.add_row(f"    {name}", _domain(domain), begins)
    console.print(table)
    fixed = {
        name: value
        for name, value in experiment.hyperparameters.model_dump().items()
        if name not in experiment.search_space
    }
    shown = ", ".join(f"{name} {str(v).lower()}" for name, v in fixed.items())
    console.print(f"  fixed: {shown}", soft_wrap=True)


def _domain(domain: Domain) -> str:
    if domain.type == "categorical":
        return "one of " + ", ".join(str(c) for c in domain.choices)
    step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
    return f"{domain.low} to {domain.high}{step}{', log scale' if domain.log else ''}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _day(time: object) -> str:
    text = str(time)
    return text.removesuffix(" 00:00:00")
