"""How a study looks on a terminal."""

from __future__ import annotations

import shlex
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tuner.coordination.records import Status, StudyRecord
from tuner.experiment.metrics import short_name
from tuner.results.differences import gap_in_words
from tuner.results.plain import left_out_in_words, plain_name
from tuner.results.summary import summarize
from tuner.watching.parts import lines_by_part
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
    console.print(f"\n[bold]{escape(record.name)}[/]: {trials} trained{listed}")
    for line in (*standing_of(record, state), *failures(record)):
        console.print(f"  {line}", markup=False)
    best = summary["best"]
    if best is None:
        return
    so_far = "" if state is State.DONE else " so far"
    console.print(f"\n[bold]Best configuration{so_far}[/] ({escape(best['name'])})")
    console.print(f"  [green]{escape(params_line(best['params']))}[/]")

    unit = "row" if record.experiment.task.of_series else "sequence"
    console.print()
    console.print(Padding(_scores(summary, unit), (0, 0, 0, 2), expand=False))
    if best["is_default"]:
        console.print(f"  The winner is the {summary['default']['name']}.", markup=False)
    test = summary["test"]
    if test:
        of = "" if best["tested"] else f"of {test['name']}'s configuration; "
        where = f"{', '.join(record.experiment.data.targets)}, {counted(test['rows'], unit)}"
        if test["from"] is not None:
            where += f", {test['from']} to {test['to']}"
        console.print(f"  test: {of}{where}", markup=False)
        if refit := test.get("refit"):
            what = refit["failed"] if "failed" in refit else _refitted(refit)
            console.print(f"  refit: {what}", markup=False)
        for line in lines_by_part(test.get("by") or {}, summary["direction"]):
            console.print(f"  {line}", markup=False)
    for line in left_out_in_words(summary["left_out"], metric):
        console.print(f"  {line}", markup=False)
    for sentence in summary["opened"]:
        console.print(f"  {sentence}", markup=False)
    if test:
        console.print(f"  [bold]Verdict:[/] {escape(summary['verdict'])}.")
    show_advice(summary["advice"])
    if len(summary["finalists"]) > 1:
        _show_finalists(summary)
    if summary["front"]:
        _show_front(record.name, summary)


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


def _scores(summary: dict[str, Any], unit: str) -> Table:
    """Return every score: a row for who, a column for the part that it is of."""
    best, test = summary["best"], summary["test"]
    metric = short_name(summary["metric"])
    opened = [test] if test else []
    if test and test.get("refit") and "failed" not in test["refit"]:
        opened.append(test["refit"])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    table.add_column(metric, overflow="fold")  # gives way on a narrow terminal
    for heading in ("validation", "test", "refit")[: 1 + len(opened)]:
        table.add_column(heading, no_wrap=True)

    def add(what: str, validation: str, *others: str) -> None:
        if validation or any(others):
            table.add_row(escape(what), validation, *others)

    if best["search_score"] is not None:
        score = number(best["search_score"])
        add("in the search", score if best["mean"] is not None else f"[bold]{score}[/]")
    tested = [f"[bold]{_spread(part)}[/]" for part in opened]
    if best["mean"] is not None:
        own = tested if best["tested"] else []
        add(_trained(best, metric), f"[bold]{_spread(best)}[/]", *own)
    if test:
        if not (best["tested"] and best["mean"] is not None):
            add(test["name"], "", *tested)
        n_models = counted(len(test["scores"]), "model")
        add(f"ensemble: the mean of the {n_models}", "", *map(_ensemble, opened))
        for place, interval in enumerate(test.get("intervals", ())):
            what = f"{unit}s within the {interval['level']:g} interval"
            add(what, "", *(_covered(part, place) for part in opened))
    others = list(map(_default, opened))
    if (default := summary["default"]) and not best["is_default"]:
        table.add_row(escape(_default_in_words(default)), _spread(default), *others)
    elif any(others):
        add(test["default"]["name"], "", *others)
    baselines = [summary["baselines"], *(part["baselines"] for part in opened)]
    for name in dict.fromkeys(name for scores in baselines for name in scores):
        add(plain_name(name, metric), *(_known(scores, name) for scores in baselines))
    return table


def _trained(best: dict[str, Any], metric: str) -> str:
    """Say what the winner's scores are of."""
    gap = gap_in_words(metric, best["gap"], best["search_score"])
    how = "retrained on" if best["trial"] is not None else "trained on"
    return f"{how} {counted(len(best['scores']), 'fresh seed')}" + (f", gap {gap}" if gap else "")


def _default_in_words(default: dict[str, Any]) -> str:
    what: str = default["name"]
    if default["trial"] is not None:
        what += f", which is trial {default['trial']}"
    elif default["scores"]:
        what += f", on {counted(len(default['scores']), 'fresh seed')}"
    if default["failed"]:
        what += f"; {counted(default['failed'], 'training')} of it failed"
    return what


def _default(part: dict[str, Any]) -> str:
    default = part.get("default")
    return _spread(default) if default and not default["is_winner"] else ""


def _ensemble(part: dict[str, Any]) -> str:
    return number(part["ensemble"]) if part.get("ensemble") is not None else ""


def _covered(part: dict[str, Any], place: int) -> str:
    """Write which share of the rows an interval holds, and how wide it is."""
    intervals = part.get("intervals", ())
    if place >= len(intervals):
        return ""
    interval = intervals[place]
    width = f", {number(interval['width'])} wide" if interval["width"] is not None else ""
    return f"{100 * interval['coverage']:.3g} %{width}"


def _known(scores: dict[str, float], name: str) -> str:
    return number(scores[name]) if name in scores else ""


def _refitted(refit: dict[str, Any]) -> str:
    epochs = counted(refit["epochs"], "epoch")
    return f"trained on validation rows too, for {epochs}: the model that is exported"


def _spread(scores: dict[str, Any]) -> str:
    """Write a mean with its standard deviation, where there is one."""
    return number(scores["mean"]) + (
        f" ± {number(scores['std'], 2)}" if scores["std"] is not None else ""
    )


def _show_finalists(summary: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="Finalists", title_justify="left", title_style="bold")
    for heading in ("trial", "search", "mean", "std", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold")  # gives way on a narrow terminal
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


def _show_front(study: str, summary: dict[str, Any]) -> None:
    front = summary["front"]
    table = Table(
        box=box.SIMPLE_HEAD, title="Pareto front", title_justify="left", title_style="bold"
    )
    for heading in ("trial", *front[0]["values"]):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold")  # gives way on a narrow terminal
    for each in front:
        values = map(number, each["values"].values())
        table.add_row(str(each["trial"]), *values, escape(params_line(each["params"])))
    console.print()
    console.print(table)
    command = f"tuner export {shlex.quote(study)} --trial {front[-1]['trial']} -o small.yaml"
    by = summary["metric"]
    console.print(
        f"  Finalists and winner are chosen by {by}. Any of these: {escape(command)}",
        soft_wrap=True,
    )


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
    """Print the best trials of a search; `ms` is how long one prediction takes."""
    ranked = record.ranked()[:most]
    if not ranked:
        return
    table = Table(
        box=box.SIMPLE_HEAD, title="Best trials", title_justify="left", title_style="bold"
    )
    metric = short_name(record.experiment.objective.metric)
    for heading in ("trial", metric, "epochs", "seconds", "weights", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration")  # the one that gives way on a narrow terminal
    for trial in ranked:
        assert trial.outcome is not None
        table.add_row(
            str(trial.number),
            number(trial.value),
            str(len(trial.outcome.history)),
            f"{trial.outcome.seconds:.1f}",
            number(trial.outcome.n_weights),
            number(trial.outcome.latency_ms, 2),
            escape(params_line(dict(trial.params))),
        )
    console.print()
    console.print(table)
