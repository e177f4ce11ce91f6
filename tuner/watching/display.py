"""How a study looks on a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuner.coordination.records import Status, StudyRecord
from tuner.results.differences import gap_in_words
from tuner.results.summary import summarize
from tuner.watching.state import State
from tuner.watching.unfinished import failures, is_over, open_trials, standing_of

__all__ = [
    "PipeConsole",
    "console",
    "counted",
    "number",
    "params_line",
    "show_next",
    "show_result",
    "show_running",
    "show_trials",
]


class PipeConsole(Console):
    """A console that leaves it to the entry point what happens when its reader has gone."""

    def on_broken_pipe(self) -> None:
        """Raise what Rich has caught, rather than exit with status 1."""
        self.quiet = True
        raise BrokenPipeError


console = PipeConsole(highlight=False)
# Into a pipe a table is as wide as it needs to be: a reader can cut lines, not join them.
if not console.is_terminal:
    console = PipeConsole(highlight=False, width=1000)


def number(value: float | None, digits: int = 4) -> str:
    """Write a score: four significant digits, a dash for none."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def params_line(params: dict[str, Any]) -> str:
    """Write a configuration in one line."""
    if not params:
        return "(nothing was searched)"
    return "  ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def show_result(record: StudyRecord, state: State = State.DONE) -> None:
    """Print the best configuration and every score that speaks for or against it."""
    summary = summarize(record)
    counts, metric = summary["trials"], summary["metric"]
    never = is_over(record, state)
    words = {Status.RUNNING: "asked for, never trained" if never else "asked for, not ended"}
    parts = [f"{counts[s.value]} {words.get(s, s.value)}" for s in Status if counts[s.value]]
    if counts["repeats"]:
        parts.append(f"{counts['repeats']} repeated an earlier one and took its score")
    trials = f"{counts['trained']} trials" if counts["trained"] != 1 else "1 trial"
    if summary["budget"] is not None and counts["trained"] < summary["budget"]:
        trials = f"{counts['trained']} of {summary['budget']} trials"
    listed = f" ({', '.join(parts)})" if parts else ""
    console.print(f"\n[bold]{record.name}[/]: {trials} trained{listed}")
    for line in (*standing_of(record, state), *failures(record)):
        console.print(f"  {line}", markup=False)
    best = summary["best"]
    if best is None:
        return
    so_far = "" if state is State.DONE else " so far"
    console.print(f"\n[bold]Best configuration{so_far}[/] (trial {best['trial']})")
    console.print(f"  [green]{escape(params_line(best['params']))}[/]")

    units = escape(", ".join(record.experiment.data.targets))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    search = f"{number(best['search_score'])}"
    table.add_row(f"  validation {metric}", f"[bold]{search}[/]", "in the search")
    if best["mean"] is not None:
        seeds = counted(len(summary["finalists"][0]["scores"]), "fresh seed")
        gap = gap_in_words(metric, best["gap"], best["search_score"])
        luck = f", gap {gap}" if gap else ""
        table.add_row("", _spread(best), f"retrained on {seeds}{luck}")
    unit = "row" if record.experiment.task.kind == "forecast" else "sequence"
    if summary["default"]:
        _add_default(table, summary["default"], best["trial"])
    _add_baselines(table, summary["baselines"], unit)
    test = summary["test"]
    if test:
        where = f"{units}, {counted(test['rows'], unit)}"
        if test["from"] is not None:
            where += f", {test['from']} to {test['to']}"
        if test["configuration"] != best["trial"]:
            where = f"of trial {test['configuration']}'s configuration; {where}"
        table.add_row(f"  test {metric}", f"[bold]{_spread(test)}[/]", where)
        if (default := test.get("default")) and not default["is_winner"]:
            table.add_row("", _spread(default), f"{default['name']}, on the same {unit}s")
        _add_baselines(table, test["baselines"], unit)
    console.print()
    console.print(table)
    for sentence in summary["opened"]:
        console.print(f"  {sentence}", markup=False)
    if test:
        console.print(f"  [bold]Verdict:[/] {escape(summary['verdict'])}.")
    if len(summary["finalists"]) > 1:
        _show_finalists(summary)


def show_next(commands: list[tuple[str, str]]) -> None:
    """Print what to type next, each command with a remark."""
    console.print("\nNext:")
    for command, remark in commands:
        console.print(f"  [bold]{escape(command)}[/]" + (f"   ({remark})" if remark else ""))


def counted(count: int, unit: str) -> str:
    """Write a count with its unit: 1 row, 2 rows."""
    return f"{count:,} {unit}{'s' * (count != 1)}"


def _add_default(table: Table, default: dict[str, Any], winner: int) -> None:
    what: str = default["name"]
    if default["trial"] is not None:
        what += f", which is trial {default['trial']}"
    elif default["scores"]:
        what += f", on {counted(len(default['scores']), 'fresh seed')}"
    if default["failed"]:
        what += f"; {counted(default['failed'], 'training')} of it failed"
    if default["trial"] == winner:
        table.add_row("", "", f"the winner is the {default['name']}")
    else:
        table.add_row("", _spread(default), what)


def _spread(scores: dict[str, Any]) -> str:
    """Write a mean with its standard deviation, where there is one."""
    return number(scores["mean"]) + (
        f" ± {number(scores['std'], 2)}" if scores["std"] is not None else ""
    )


def _add_baselines(table: Table, baselines: dict[str, float], unit: str) -> None:
    for name, score in baselines.items():
        table.add_row("", number(score), f"{name.replace('_', ' ')}, on the same {unit}s")


def _show_finalists(summary: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="Finalists", title_justify="left", title_style="bold")
    for heading in ("trial", "search", "mean", "std", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration")  # the one that gives way on a narrow terminal
    metric = summary["metric"]
    for finalist in summary["finalists"]:
        table.add_row(
            str(finalist["trial"]),
            number(finalist["search_score"]),
            number(finalist["mean"]),
            number(finalist["std"], 2),
            gap_in_words(metric, finalist["gap"], finalist["search_score"]) or "-",
            escape(params_line(finalist["params"])),
        )
    console.print()
    console.print(table)
    if said := summary["first_and_second"]:
        console.print(f"  First and second: {said}.", markup=False)


def show_running(record: StudyRecord, most: int = 10) -> None:
    """Print the trials of a running search that a worker has, or that wait for one."""
    running = open_trials(record)
    if not running or is_over(record, State.RUNNING):
        return
    console.print("\n[bold]Asked for, not ended[/]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for trial in running[:most]:
        table.add_row(f"  trial {trial.number}", escape(params_line(dict(trial.params))))
    if len(running) > most:
        table.add_row("  …", f"and {len(running) - most} more")
    console.print(table)


def show_trials(record: StudyRecord, most: int = 10) -> None:
    """Print the best trials of a search."""
    ranked = record.ranked()[:most]
    if not ranked:
        return
    table = Table(
        box=box.SIMPLE_HEAD, title="Best trials", title_justify="left", title_style="bold"
    )
    for heading in ("trial", record.experiment.objective.metric, "epochs", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration")  # the one that gives way on a narrow terminal
    for trial in ranked:
        assert trial.outcome is not None
        table.add_row(
            str(trial.number),
            number(trial.value),
            str(len(trial.outcome.history)),
            f"{trial.outcome.seconds:.1f}",
            escape(params_line(dict(trial.params))),
        )
    console.print()
    console.print(table)
