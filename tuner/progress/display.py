"""A study on a terminal: its state, scores by part, and the result."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tuner.coordination.finalists import retrained_of, tested_name
from tuner.data.baselines import baseline_name
from tuner.errors import one_line
from tuner.journal.records import (
    ModelScores,
    Scores,
    Status,
    StudyRecord,
    StudyState,
    TestScore,
    TrialRecord,
)
from tuner.metrics import short_name
from tuner.results.advice import Advice
from tuner.results.summary import Configuration, Summary, summarize
from tuner.results.verdict import gap_in_words, left_out_in_words

_STEPS, _WORST, _MOST_REASONS = 8, 5, 5  # shown at most


def lines_by_part(by: Mapping[str, Sequence[Mapping[str, Any]]], direction: str) -> list[str]:
    """Return a line for each breakdown of the test score: by step, series, target and class.

    Args:
        by: `TestScore.by`.
        direction: minimize or maximize.
    """
    lines = []
    if len(steps := by.get("step", [])) > 1:
        last = len(steps) - 1
        places = sorted({round(i * last / (_STEPS - 1)) for i in range(_STEPS)})
        scores = ", ".join(f"{steps[i]['name']}: {number(steps[i]['score'])}" for i in places)
        lines.append(f"by step of the horizon  {scores}")
    for kind in ("series", "target"):
        if len(rows := by.get(kind, [])) > 1:
            sign = 1 if direction == "maximize" else -1
            known = [row for row in rows if row["score"] is not None]
            worst = sorted(known, key=lambda row: sign * row["score"])
            lines.append(f"by {kind}, the worst first  {_listed(worst, 'score')}")
    if rows := by.get("class", []):
        worst = sorted(rows, key=lambda row: row["f1"])
        lines.append(f"f1 by class, the worst first  {_listed(worst, 'f1')}")
    return lines


def _listed(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    shown = ", ".join(f"{row['name']}: {number(row[key])}" for row in rows[:_WORST])
    more = len(rows) - _WORST
    return shown + (f", and {more} more (--json)" if more > 0 else "")


def open_trials(record: StudyRecord) -> list[TrialRecord]:
    """Return the trials that were asked for and have not ended; not all may have started."""
    return [t for t in record.trials if t.status is Status.RUNNING and t.repeat_of is None]


def is_over(record: StudyRecord, state: StudyState) -> bool:
    """Return whether the search is over, so that open trials will never be trained."""
    if state is StudyState.DONE:
        return True
    # A running search may still finish trials after the time is up.
    may_run = state in (StudyState.RUNNING, StudyState.UNKNOWN)
    return record.time_is_up and (not may_run or any(not t.outcome for t in record.finalists))


def standing_of(record: StudyRecord, state: StudyState) -> list[str]:
    """Return lines on the state of a search; of a finished one, only that its time was up."""
    over = is_over(record, state)
    lines = []
    match state:
        case StudyState.RUNNING:
            lines.append("the search is running")
        case StudyState.UNKNOWN:
            lines.append("running or killed (unknown for a database): the same command resumes")
        case StudyState.INTERRUPTED if not record.best and (record.is_full or record.time_is_up):
            lines.append("no trial completed")
        case StudyState.INTERRUPTED:
            lines.append("interrupted: the same command resumes")
    if over and record.time_is_up:
        lines.append(f"the time is up ({record.experiment.budget.timeout:g} s)")
    done, total = retrained_of(record)
    if state is not StudyState.DONE and total and (over or not open_trials(record)):
        undecided = "" if done == total else "; which is the best is decided when all are"
        lines.append(f"finalists: {done} of {total} retrained{undecided}")
    return lines


def failures(record: StudyRecord) -> list[str]:
    """Return why trials and finalists failed: the most frequent reasons, each with its count."""
    reasons = Counter(
        (trial.role.value, one_line(trial.outcome.reason or "for no known reason"))
        for trial in (*record.trials, *record.finalists)
        if trial.outcome and trial.status is Status.FAILED and trial.repeat_of is None
    )
    lines = [
        f"{count} {role}{'s' * (count != 1)} failed: {reason}"
        for (role, reason), count in reasons.most_common(_MOST_REASONS)
    ]
    if (n_more := len(reasons) - _MOST_REASONS) > 0:
        lines.append(f"and for {counted(n_more, 'other reason')}")
    return lines


class PipeConsole(Console):
    """A console that raises BrokenPipeError, for the entry point to handle."""

    def on_broken_pipe(self) -> None:
        """Raise the error again; Rich would exit with status 1."""
        self.quiet = True
        raise BrokenPipeError


console = PipeConsole(highlight=False)
# Tables in a pipe are not wrapped: a reader can cut lines, but cannot join them.
if not console.is_terminal:
    console = PipeConsole(highlight=False, width=1000)


def number(value: float | None, digits: int = 4) -> str:
    """Return a score with `digits` significant digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def params_line(params: Mapping[str, Any]) -> str:
    """Return a configuration in one line."""
    if not params:
        return "(nothing was searched)"
    return "  ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def show_result(
    record: StudyRecord, state: StudyState = StudyState.DONE, *, said: Collection[str] = ()
) -> None:
    """Print the state of a study, its best configuration, and all scores to judge it by.

    `said` are lines printed before: advice among them is left out.
    """
    summary = summarize(record)
    counts, metric = summary.trials, summary.metric
    never = is_over(record, state)
    words = {Status.RUNNING: "asked for, never trained" if never else "asked for, not ended"}
    parts = [f"{counts[s.value]} {words.get(s, s.value)}" for s in Status if counts[s.value]]
    if counts["repeats"]:
        parts.append(f"{counts['repeats']} repeated an earlier one and took its score")
    trials = f"{counts['trained']} trials" if counts["trained"] != 1 else "1 trial"
    if summary.budget is not None and counts["trained"] < summary.budget:
        trials = f"{counts['trained']} of {summary.budget} trials"
    listed = f" ({', '.join(parts)})" if parts else ""
    console.print(f"\n[bold]{escape(record.name)}[/]: {trials} trained{listed}")
    for line in (*standing_of(record, state), *failures(record)):
        console.print(f"  {line}", markup=False)
    best = summary.best
    if best is None:
        return
    so_far = "" if state is StudyState.DONE else " so far"
    console.print(f"\n[bold]Best configuration{so_far}[/] ({escape(best.name)})")
    console.print(f"  [green]{escape(params_line(best.params))}[/]")

    unit = "row" if record.experiment.task.of_series else "sequence"
    console.print()
    console.print(Padding(_scores(summary, unit), (0, 0, 0, 2), expand=False))
    lines, test = [], summary.test
    if best.is_default and summary.default is not None:
        lines.append(f"The winner is the {summary.default.name}.")
    if test:
        of = "" if best.tested else f"of {tested_name(test)}'s configuration; "
        where = f"{', '.join(record.experiment.data.targets)}, {counted(test.rows, unit)}"
        span = f", {test.first} to {test.last}" if test.first is not None else ""
        lines.append(f"test: {of}{where}{span}")
        if refit := _refitted(test):
            lines.append(f"refit: {refit}")
        lines += lines_by_part(test.by, summary.direction)
    for line in (*lines, *left_out_in_words(summary.left_out, metric), *summary.opened):
        console.print(f"  {line}", markup=False)
    if summary.verdict:
        console.print(f"  [bold]Verdict:[/] {escape(summary.verdict)}.")
    show_advice([advice for advice in summary.advice if str(advice) not in said])
    if len(summary.finalists) > 1:
        _show_finalists(summary)
    if summary.front:
        _show_front(record.name, summary)


def show_advice(advice: Sequence[Advice]) -> None:
    """Print the advice, a line for each key of the experiment."""
    if advice:
        console.print("\n[bold]What stands in the way[/]")
    for each in advice:
        console.print(f"  [bold]{escape(each.key)}[/]: {escape(each.text)}", soft_wrap=True)


def show_next(commands: list[tuple[str, str]]) -> None:
    """Print the commands to type next, each with a remark."""
    console.print("\nNext:")
    for command, remark in commands:
        console.print(f"  [bold]{escape(command)}[/]" + (f"   ({remark})" if remark else ""))


def counted(count: int, unit: str) -> str:
    """Return a count with its unit: 1 row, 2 rows."""
    return f"{count:,} {unit}{'s' * (count != 1)}"


def _scores(summary: Summary, unit: str) -> Table:
    """Return the scores: a row for each model, a column for each data set."""
    best, test = summary.best, summary.test
    assert best is not None
    metric = short_name(summary.metric)
    opened: list[ModelScores] = [part for part in (test, test and test.refit) if part]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    table.add_column(metric, overflow="fold")  # wraps on a narrow terminal
    for heading in ("validation", "test", "refit")[: 1 + len(opened)]:
        table.add_column(heading, no_wrap=True)

    def add(what: str, validation: str, *others: str) -> None:
        if validation or any(others):
            table.add_row(escape(what), validation, *others)

    if best.search_score is not None:
        score = number(best.search_score)
        add("in the search", score if best.mean is not None else f"[bold]{score}[/]")
    tested = [f"[bold]{_spread(part)}[/]" for part in opened]
    if best.mean is not None:
        own = tested if best.tested else []
        add(_trained(best, metric), f"[bold]{_spread(best)}[/]", *own)
    if test:
        if not (best.tested and best.mean is not None):
            add(tested_name(test), "", *tested)
        together = ["" if p.ensemble is None else number(p.ensemble) for p in opened]
        add(f"ensemble: the mean of the {counted(len(test.scores), 'model')}", "", *together)
        for place, interval in enumerate(test.intervals):
            what = f"{unit}s within the {interval.level:g} interval"
            add(what, "", *(_covered(part, place) for part in opened))
    others = [_spread(d) if (d := part.default) and not d.is_winner else "" for part in opened]
    if (default := summary.default) and not best.is_default:
        table.add_row(escape(_default_in_words(default)), _spread(default), *others)
    elif test and test.default and any(others):
        add(test.default.name, "", *others)
    baselines = [summary.baselines, *(part.baselines for part in opened)]
    for name in dict.fromkeys(name for scores in baselines for name in scores):
        add(baseline_name(name, metric), *(_known(scores, name) for scores in baselines))
    return table


def _trained(best: Configuration, metric: str) -> str:
    gap = gap_in_words(metric, best.gap, best.search_score)
    how = "retrained on" if best.trial is not None else "trained on"
    return f"{how} {counted(len(best.scores), 'fresh seed')}" + (f", gap {gap}" if gap else "")


def _default_in_words(default: Configuration) -> str:
    what = default.name
    if default.trial is not None:
        what += f", which is trial {default.trial}"
    elif default.scores:
        what += f", on {counted(len(default.scores), 'fresh seed')}"
    if default.failed:
        what += f"; {counted(default.failed, 'training')} of it failed"
    return what


def _covered(part: ModelScores, place: int) -> str:
    """Return the coverage of a prediction interval, and its mean width."""
    if place >= len(part.intervals):
        return ""
    interval = part.intervals[place]
    width = f", {number(interval.width)} wide" if interval.width is not None else ""
    return f"{100 * interval.coverage:.3g} %{width}"


def _known(scores: Mapping[str, float | None], name: str) -> str:
    return number(scores[name]) if name in scores else ""


def _refitted(test: TestScore) -> str | None:
    if test.refit is None:
        return test.refit_failed
    epochs = counted(test.refit.epochs or 0, "epoch")
    return f"trained on validation rows too, for {epochs}: the model that is exported"


def _spread(scores: Scores | Configuration) -> str:
    """Return a mean with its standard deviation, if any."""
    std = f" ± {number(scores.std, 2)}" if scores.std is not None else ""
    return number(scores.mean) + std


def _table(title: str, *numbers: str) -> Table:
    """Return a table with columns of numbers, and the configuration in the last one."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold")  # wraps on a narrow terminal
    return table


def _show_finalists(summary: Summary) -> None:
    table = _table("Finalists", "trial", "search", "mean", "std", "gap")
    metric = summary.metric
    for finalist in summary.finalists:
        table.add_row(
            str(finalist.trial) if finalist.trial is not None else finalist.name,
            number(finalist.search_score),
            number(finalist.mean),
            number(finalist.std, 2),
            gap_in_words(metric, finalist.gap, finalist.search_score) or "-",
            escape(params_line(finalist.params)),
        )
    console.print()
    console.print(table)
    if summary.first_and_second:
        console.print(f"  First and second: {summary.first_and_second}.", markup=False)


def _show_front(study: str, summary: Summary) -> None:
    front = summary.front or ()
    table = _table("Pareto front", "trial", *front[0].values)
    for each in front:
        values = map(number, each.values.values())
        table.add_row(str(each.trial), *values, escape(params_line(each.params)))
    console.print()
    console.print(table)
    command = f"tuner export {shlex.quote(study)} --trial {front[-1].trial} -o small.yaml"
    chosen = f"Finalists and winner are chosen by {summary.metric}"
    console.print(f"  {chosen}. Any of these: {escape(command)}", soft_wrap=True)


def show_running(record: StudyRecord, most: int = 10) -> None:
    """Print the trials of a running search that have not ended."""
    running = open_trials(record)
    if not running or is_over(record, StudyState.RUNNING):
        return
    console.print("\n[bold]Asked for, not ended[/]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for trial in running[:most]:
        table.add_row(f"  trial {trial.number}", escape(params_line(dict(trial.params))))
    if len(running) > most:
        table.add_row("  …", f"and {len(running) - most} more")
    console.print(table)


def show_trials(record: StudyRecord, most: int = 10) -> None:
    """Print the best trials; `ms` is the time of one prediction in milliseconds."""
    ranked = record.ranked()[:most]
    if not ranked:
        return
    metric = short_name(record.experiment.objective.metric)
    table = _table("Best trials", "trial", metric, "epochs", "seconds", "weights", "ms")
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
