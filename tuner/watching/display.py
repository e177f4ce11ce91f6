"""How a study looks on a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuner.coordination.records import Status, StudyRecord
from tuner.results.differences import gap_in_words
from tuner.results.plain import left_out_in_words, plain_name
from tuner.results.summary import summarize
from tuner.watching.state import State
from tuner.watching.unfinished import failures, is_over, open_trials, standing_of

__all__ = [
    "PipeConsole",
    "console",
    "counted",
    "number",
    "params_line",
    "show_advice",
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
    console.print(f"\n[bold]Best configuration{so_far}[/] ({escape(best['name'])})")
    console.print(f"  [green]{escape(params_line(best['params']))}[/]")

    units = escape(", ".join(record.experiment.data.targets))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    heading = f"  validation {metric}"
    if best["search_score"] is not None:
        table.add_row(heading, f"[bold]{number(best['search_score'])}[/]", "in the search")
        heading = ""
    if best["mean"] is not None:
        seeds = counted(len(best["scores"]), "fresh seed")
        gap = gap_in_words(metric, best["gap"], best["search_score"])
        luck = f", gap {gap}" if gap else ""
        how = "retrained on" if best["trial"] is not None else "trained on"
        table.add_row(heading, _spread(best), f"{how} {seeds}{luck}")
    unit = "row" if record.experiment.task.kind == "forecast" else "sequence"
    if summary["default"]:
        _add_default(table, summary["default"], best["is_default"])
    _add_baselines(table, metric, summary["baselines"], unit)
    test = summary["test"]
    if test:
        where = f"{units}, {counted(test['rows'], unit)}"
        if test["from"] is not None:
            where += f", {test['from']} to {test['to']}"
        if not best["tested"]:
            where = f"of {test['name']}'s configuration; {where}"
        table.add_row(f"  test {metric}", f"[bold]{_spread(test)}[/]", where)
        _add_test(table, metric, test, unit)
        refit = test.get("refit")
        if refit and "failed" in refit:
            table.add_row("", "-", f"trained on validation rows too: {escape(refit['failed'])}")
        elif refit:
            epochs = counted(refit["epochs"], "epoch")
            what = f"trained on validation rows too, for {epochs}: the model that is exported"
            table.add_row(f"  refit {metric}", f"[bold]{_spread(refit)}[/]", what)
            _add_test(table, metric, refit, unit)
    console.print()
    console.print(table)
    for line in left_out_in_words(summary["left_out"], metric):
        console.print(f"  {line}", markup=False)
    for sentence in summary["opened"]:
        console.print(f"  {sentence}", markup=False)
    if test:
        console.print(f"  [bold]Verdict:[/] {escape(summary['verdict'])}.")
    show_advice(summary["advice"])
    if len(summary["finalists"]) > 1:
        _show_finalists(summary)


def show_advice(advice: list[dict[str, Any]]) -> None:
    """Print what stands in the way, a line for each key that changes it."""
    if advice:
        console.print("\n[bold]What stands in the way[/]")
    for each in advice:
        console.print(f"  [bold]{escape(each['key'])}[/]: {escape(each['text'])}", soft_wrap=True)


def show_next(commands: list[tuple[str, str]]) -> None:
    """Print what to type next, each command with a remark."""
    console.print("\nNext:")
    for command, remark in commands:
        console.print(f"  [bold]{escape(command)}[/]" + (f"   ({remark})" if remark else ""))


def counted(count: int, unit: str) -> str:
    """Write a count with its unit: 1 row, 2 rows."""
    return f"{count:,} {unit}{'s' * (count != 1)}"


def _add_default(table: Table, default: dict[str, Any], wins: bool) -> None:
    what: str = default["name"]
    if default["trial"] is not None:
        what += f", which is trial {default['trial']}"
    elif default["scores"]:
        what += f", on {counted(len(default['scores']), 'fresh seed')}"
    if default["failed"]:
        what += f"; {counted(default['failed'], 'training')} of it failed"
    if wins:
        table.add_row("", "", f"the winner is the {default['name']}")
    else:
        table.add_row("", _spread(default), what)


def _spread(scores: dict[str, Any]) -> str:
    """Write a mean with its standard deviation, where there is one."""
    return number(scores["mean"]) + (
        f" ± {number(scores['std'], 2)}" if scores["std"] is not None else ""
    )


def _add_test(table: Table, metric: str, test: dict[str, Any], unit: str) -> None:
    """Add what stands beside a test score: the ensemble, the default, plain predictions."""
    if test.get("ensemble") is not None:
        models = counted(len(test["scores"]), "model")
        table.add_row("", number(test["ensemble"]), f"ensemble: the mean of the {models}")
    for interval in test.get("intervals", ()):
        covers = f"of the {unit}s lie in the {interval['level']:g} interval"
        width = f", {number(interval['width'])} wide" if interval["width"] is not None else ""
        table.add_row("", f"{100 * interval['coverage']:.3g} %", covers + width)
    if (default := test.get("default")) and not default["is_winner"]:
        table.add_row("", _spread(default), f"{default['name']}, on the same {unit}s")
    _add_baselines(table, metric, test["baselines"], unit)


def _add_baselines(table: Table, metric: str, baselines: dict[str, float], unit: str) -> None:
    for name, score in baselines.items():
        what = f"{plain_name(name, metric)}, on the same {unit}s"
        table.add_row("", number(score), escape(what))


def _show_finalists(summary: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="Finalists", title_justify="left", title_style="bold")
    for heading in ("trial", "search", "mean", "std", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration")  # the one that gives way on a narrow terminal
    metric = summary["metric"]
    for finalist in summary["finalists"]:
        table.add_row(
            str(finalist["trial"]) if finalist["trial"] is not None else finalist["name"],
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
