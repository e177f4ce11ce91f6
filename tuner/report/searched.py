"""The part of the page about the search: what was tried, and what became of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.coordination.seeds import Role
from tuner.experiment import CategoricalDomain, Domain, flat
from tuner.report.drawing import number
from tuner.report.markup import Html, details, items, paragraph, section, table

__all__ = ["best_configuration", "how_searched", "problems", "trials_of"]

_MOST_NAMED = 8  # trials with the same reason
_SETTINGS = ("strategy", "budget", "pruner", "objective", "finalists", "training")


def best_configuration(record: StudyRecord, summary: dict[str, Any]) -> Html:
    """Return every hyperparameter of the winner, the searched ones first."""
    best = summary["best"]
    if best is None:
        return section("best", "Best configuration", paragraph("No trial is complete."))
    searched, whole = best["params"], best["hyperparameters"]
    space = record.experiment.search_space  # a default may set what is no key of it
    rows = [(name, _value(value), _domain(space[name]) if name in space else "–")
            for name, value in searched.items()]  # fmt: skip
    fixed = [(k, _value(v)) for k, v in whole.items() if k not in searched]
    return section(
        "best",
        f"Best configuration: {best['name']}",
        table(("hyperparameter", "value", "searched in"), rows),
        details("Fixed hyperparameters", table(("hyperparameter", "value"), fixed)),
    )


def trials_of(trained: int, most: int | None, at_most: str = "") -> str:
    """Write how many trials are trained, and of how many where the budget says so."""
    return f"{trained:,} trials" if most is None else f"{trained:,} of {at_most}{most:,} trials"


def how_searched(record: StudyRecord, summary: dict[str, Any]) -> Html:
    """Return the search space and the settings of the search."""
    counts = summary["trials"]
    parts = [
        f"{counts[status.value]:,} {status.value}" for status in Status if counts[status.value]
    ]
    if counts["repeats"]:
        parts.append(f"{counts['repeats']:,} repeated an earlier one and took its outcome")
    listed = f": {', '.join(parts)}" if parts else ""
    said = paragraph(
        f"{trials_of(counts['trained'], summary['budget'], 'at most ')} were trained{listed}. The "
        f"search took {_duration(record.seconds)}."
    )
    space = [(name, _domain(domain)) for name, domain in record.experiment.search_space.items()]
    shown = table(("hyperparameter", "domain"), space)
    raw = record.experiment.to_dict()
    settings = dict(flat({key: raw[key] for key in _SETTINGS}))
    settings |= {"asynchronous": record.experiment.asynchronous, "seed": record.experiment.seed}
    return section(
        "search",
        "Search",
        said,
        Html("<h3>Search space</h3>\n"),
        shown or paragraph("Nothing was searched."),
        Html("<h3>Strategy and budget</h3>\n"),
        table(("key", "value"), [(key, _value(value)) for key, value in settings.items()]),
    )


def problems(record: StudyRecord) -> Html:
    """Return why trials failed, and which were lost to the machine; nothing where none was."""
    runs = [*record.trained, *record.finalists]
    failed = [t for t in runs if t.status is Status.FAILED]
    lost = [(t, reason) for t in runs for reason in t.lost]
    if not failed and not lost:
        return Html("")
    parts = [
        table(
            ("why", "how many", "trials"),
            _by_reason((t, (t.outcome.reason if t.outcome else None) or "unknown") for t in failed),
            numbers=1,
        )
    ]
    if lost:
        parts.append(Html("<h3>Lost to the machine, and trained again</h3>\n"))
        parts.append(items(f"{_name(t)}: {reason}" for t, reason in lost[:_MOST_NAMED]))
        if len(lost) > _MOST_NAMED:
            parts.append(paragraph(f"and {len(lost) - _MOST_NAMED} more"))
    return section("failures", "Failures", *parts)


def _by_reason(failed: Iterable[tuple[TrialRecord, str]]) -> list[tuple[str, str, str]]:
    trials: dict[str, list[str]] = defaultdict(list)
    for trial, reason in failed:
        trials[reason].append(_name(trial))
    rows = []
    for reason, names in sorted(trials.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        rows.append((reason, str(len(names)), ", ".join(names[:_MOST_NAMED]) + more))
    return rows


def _name(trial: TrialRecord) -> str:
    if trial.role is Role.BASELINE:
        return f"training {trial.repeat} of the default"
    if trial.configuration is not None:
        return f"retraining {trial.repeat} of trial {trial.configuration}"
    return f"trial {trial.number}"


def _domain(domain: Domain) -> str:
    if isinstance(domain, CategoricalDomain):
        return ", ".join(map(str, domain.choices))
    step = f", step {domain.step:g}" if domain.step not in (None, 1) else ""
    return f"{domain.low:g} to {domain.high:g}{step}{', log' if domain.log else ''} ({domain.type})"


def _value(value: Any) -> str:
    return number(value, 6) if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if hours < 1 else f"{hours:.1f} h"
