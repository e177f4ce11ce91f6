"""The result of a study as one self-contained HTML page."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from tuner.coordination.finalists import Default, default_of
from tuner.experiment import CategoricalDomain, Domain, Experiment, Split, flat
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.journal.storage import Role
from tuner.report.markup import (
    STYLE,
    Html,
    code,
    details,
    figure,
    items,
    paragraph,
    section,
    table,
    text,
)
from tuner.report.pictures import draw_all
from tuner.report.plotting import Picture, number
from tuner.report.predictions import by_part
from tuner.results.summary import minute, summarize
from tuner.results.verdict import (
    ENOUGH,
    Worth,
    best_plain,
    gap_in_words,
    left_out_in_words,
    plain_name,
)
from tuner.results.winner import has_refit, judged, tested_name

__all__ = [
    "ENDINGS",
    "best_configuration",
    "finalists",
    "how_searched",
    "is_report",
    "problems",
    "protocol",
    "report",
    "reproduction",
    "trials_of",
    "verdict",
]

_KINDS = {Worth.PAID: "good", Worth.BETTER: "good", Worth.USELESS: "bad"}


def verdict(record: StudyRecord, summary: dict[str, Any]) -> Html:
    """Return the verdict in a sentence, and the scores as large numbers."""
    sentence, kind = _sentence(summary)
    said = "".join(paragraph(sentence, kind="dim") for sentence in summary["opened"])
    shown = paragraph(sentence, kind=f"verdict {kind}".strip())
    return Html(f"{shown}{_numbers(summary)}{said}{_advice(summary)}")


def finalists(record: StudyRecord, summary: dict[str, Any]) -> Html:
    """Return the table of the retrained configurations, and that of all they have to beat."""
    metric, default = summary["metric"], summary["default"]
    rows = [
        (
            _name(finalist, default),
            number(finalist["search_score"]),
            number(finalist["mean"]),
            number(finalist["std"], 2),
            gap_in_words(metric, finalist["gap"], finalist["search_score"]) or "–",
            ", ".join(map(number, finalist["scores"])),
        )
        for finalist in summary["finalists"]
    ]
    among = default and default["trial"] in [f["trial"] for f in summary["finalists"]]
    if rows and default and not among:  # it came to nothing
        scores = ", ".join(map(number, default["scores"])) or "–"
        own = (number(default["mean"]), number(default["std"], 2), "–", scores)
        rows.append((default["name"], "–", *own))
    headings = ("configuration", "in the search", "mean", "std", "gap", "every retraining")
    parts = [table(headings, rows, numbers=5)]
    if rows:
        parts.append(
            paragraph(
                f"Validation {metric} of the best configurations, retrained on fresh seeds; the "
                f"best mean wins. The gap is how far the mean lies from the search's score: the "
                f"best of many scores is partly luck.",
                kind="dim",
            )
        )
        if said := summary["first_and_second"]:
            parts.insert(1, paragraph(f"First and second: {said}."))
        if default and default["failed"]:
            failed = f"Of the {default['name']}, {default['failed']} trainings failed."
            parts.append(paragraph(failed))
    elif record.experiment.finalists.top == 0:
        parts.append(paragraph("No configuration was retrained on fresh seeds: finalists.top is 0. "
                               "The best score of the search is partly luck."))  # fmt: skip
    else:
        parts.append(paragraph("No configuration has been retrained on fresh seeds yet."))
    parts += [Html("<h3>Beside what has to be beaten</h3>\n"), _baselines(summary)]
    parts.append(by_part(summary))
    return section("scores", "Scores", *parts)


def _sentence(summary: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict and whether it is good or bad; both are the summary's."""
    test, best = summary["test"], summary["best"]
    if summary["verdict"] is None:
        if best is None:
            counts = summary["trials"]
            failed = f", and {counts[Status.FAILED.value]} failed" if counts["failed"] else ""
            return (f"No verdict: no trial is complete{failed}.", "")
        return ("No verdict yet: the test part has not been opened.", "")
    of = summary["verdict"]
    kind = _KINDS.get(summary["worth"], "")
    if kind == "good" and len(judged(test)["scores"]) < ENOUGH:
        kind = ""  # it may be luck
    return f"{of[:1].upper()}{of[1:]}.", kind


def _numbers(summary: dict[str, Any]) -> Html:
    metric, best, test = summary["metric"], summary["best"], summary["test"]
    shown: list[tuple[str, str]] = []
    if test is not None:
        of = "" if best and best["tested"] else f", {test['name']}"
        test = judged(test)
        how = ", trained on validation rows too" if has_refit(test) else ""
        shown.append((_with_std(test), f"{metric} on the test part{of}{how}"))
        if test.get("ensemble") is not None:
            shown.append((number(test["ensemble"]), "the mean of the models on the test part"))
        if (default := test.get("default")) and not default["is_winner"]:
            shown.append((_with_std(default), f"{default['name']} on the test part"))
        if plain := best_plain(metric, test["baselines"]):
            shown.append((number(plain[1]), f"{plain_name(plain[0], metric)} on the test part"))
    if best is not None:
        if best["mean"] is not None:
            repeats = len(best["scores"])
            seeds = f"{repeats} fresh seed{'s' * (repeats != 1)}"
            shown.append((_with_std(best), f"validation {metric} on {seeds}"))
        if best["search_score"] is not None:
            shown.append((number(best["search_score"]), f"validation {metric} in the search"))
    cells = "".join(f"<div><b>{text(n)}</b><span>{text(what)}</span></div>\n" for n, what in shown)
    return Html(f'<div class="numbers">{cells}</div>\n' if cells else "")


def _baselines(summary: dict[str, Any]) -> Html:
    best, test, default = summary["best"], summary["test"], summary["default"]
    on_validation = summary["baselines"]
    # With a refit there is a column more: the same rows, by models that know the validation part.
    kinds = [] if test is None else [test, test["refit"]] if has_refit(test) else [test]
    n_columns = max(1, len(kinds))
    none = ("–",) * n_columns
    rows: list[tuple[str, ...]] = []
    metric = summary["metric"]
    if best is not None:
        retrained = best["mean"] is not None
        mean = _with_std(best) if retrained else number(best["search_score"])
        same = best["tested"]
        winner = f"the winner ({_name(best, default)})"
        scores = tuple(map(_with_std, kinds))
        rows.append((winner, mean, *(scores if same else none)))
        if test is not None and not same:
            rows.append((test["name"], "–", *scores))
    if any(kind.get("ensemble") is not None for kind in kinds):
        models = f"the mean of its {len(kinds[0]['scores'])} models"
        rows.append((models, "–", *(number(kind.get("ensemble")) for kind in kinds)))
    tested = [kind.get("default") for kind in kinds]
    known = [scores for scores in (default, *tested) if scores]
    if known and not (best and best["is_default"]):
        own = [_with_std(s) if s and s["scores"] else "–" for s in (default, *tested)]
        rows.append((known[0]["name"], own[0], *(own[1:] or none)))
    names = dict.fromkeys([*on_validation, *(name for kind in kinds for name in kind["baselines"])])
    for name in names:
        shown = [number(kind["baselines"].get(name)) for kind in kinds] or [number(None)]
        rows.append((plain_name(name, metric), number(on_validation.get(name)), *shown))
    for level, *shares in _coverages(kinds):
        rows.append((f"{level:g} interval: rows within", "–", *shares))
    better = "more" if summary["direction"] == "maximize" else "less"
    headings: tuple[str, ...] = ("", f"validation {metric}", f"test {metric}")
    said = f"{better.capitalize()} is better."
    if n_columns > 1:
        headings += (f"test {metric}, refit",)
        said += (
            f" Refit: trained again on training and validation part together, the winner for "
            f"{kinds[1]['epochs']} epochs; that is the model that is exported."
        )
    return Html(
        table(headings, rows, numbers=1 + n_columns)
        + paragraph(said, kind="dim")
        + "".join(
            paragraph(f"{line[:1].upper()}{line[1:]}.", kind="dim")
            for line in left_out_in_words(summary["left_out"], metric)
        )
    )


def _coverages(kinds: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return each level of the intervals, and what they cover of the test part, of each kind."""
    found = [kind.get("intervals") or [] for kind in kinds]
    return [
        (of_level[0]["level"], *(f"{100 * i['coverage']:.3g} %" for i in of_level))
        for of_level in zip(*found, strict=False)
    ]


def _advice(summary: dict[str, Any]) -> Html:
    if not summary["advice"]:
        return Html("")
    lines = [f"{each['key']}: {each['text']}." for each in summary["advice"]]
    return Html(f"<h3>What stands in the way</h3>\n{items(lines)}")


def _name(configuration: dict[str, Any], default: dict[str, Any] | None) -> str:
    name, trial = str(configuration["name"]), configuration["trial"]
    is_default = default is not None and trial is not None and default["trial"] == trial
    return f"{name}, the {default['name']}" if default and is_default else name


def _with_std(scores: Mapping[str, Any]) -> str:
    if scores["mean"] is None:
        return "not finite"
    std = scores["std"]
    return number(scores["mean"]) + (f" ± {number(std, 2)}" if std is not None else "")


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
        parts.append(items(f"{_parameter_name(t)}: {reason}" for t, reason in lost[:_MOST_NAMED]))
        if len(lost) > _MOST_NAMED:
            parts.append(paragraph(f"and {len(lost) - _MOST_NAMED} more"))
    return section("failures", "Failures", *parts)


def _by_reason(failed: Iterable[tuple[TrialRecord, str]]) -> list[tuple[str, str, str]]:
    trials: dict[str, list[str]] = defaultdict(list)
    for trial, reason in failed:
        trials[reason].append(_parameter_name(trial))
    rows = []
    for reason, names in sorted(trials.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        rows.append((reason, str(len(names)), ", ".join(names[:_MOST_NAMED]) + more))
    return rows


def _parameter_name(trial: TrialRecord) -> str:
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


_FITTED = "What is fitted to data (scaling, vocabulary) is fitted on the training part alone."


def protocol(record: StudyRecord) -> Html:
    """Return which rows were what, what was fitted on what, and when the test part was opened."""
    experiment, test = record.experiment, record.test
    parts = record.data.get("parts") or (test or {}).get("parts")
    if parts:
        split = experiment.data.split
        rows = [(p["name"], f"{p['count']:,} {p['unit']}s", _span(p, split)) for p in parts]
        shown = table(("part", "size", "from … to"), rows, numbers=1)
    else:
        shown = paragraph(_split_in_words(experiment))
    of_series = experiment.task.of_series
    said = [
        _FITTED + (" Each fold has its own." if experiment.n_folds > 1 else ""),
        "Every trial was trained on the training part and scored on the validation part; its score "
        "is that of its best epoch"
        + (f", the mean over {experiment.n_folds} folds." if experiment.n_folds > 1 else "."),
    ]
    said += _own_split(experiment.data.split)
    if of_series:
        said.append("The parts follow one another in time. A window may read rows before its part, "
                    "but every target belongs to one part only.")  # fmt: skip
    if experiment.finalists.top:
        said.append(
            f"The best {experiment.finalists.top} configurations are retrained on "
            f"{experiment.finalists.repeats} seeds that the search did not use, on the same "
            f"training part."
        )
    if default := default_of(record):
        said.append(_how_default(default))
    if test is not None and has_refit(test):
        epochs = test["refit"]["epochs"]
        said.append(
            f"Before the test part was opened the winner was trained again on training and "
            f"validation part together, on the same seeds, for {epochs} epoch"
            f"{'s' * (epochs != 1)}: the median of its best ones. Scaling is fitted on both then."
        )
    said.append("Plain predictions know the training part, and of a series the rows before the "
                "one that they forecast.")  # fmt: skip
    if test is None:
        said.append("The test part has not been opened: nothing here was chosen by it.")
    openings = record.openings
    said += [_opening(o, of_series, o is openings[0], len(openings)) for o in openings]
    name = PurePath(str(record.data["path"])).name
    said.append(f"Data: {name}, {record.data['rows']:,} rows, sha256 {record.data['sha256']}.")
    return section("protocol", "Protocol", shown, items(said))


def reproduction(record: StudyRecord) -> Html:
    """Return the commands, the seeds and the versions that give this result again."""
    study = shlex.quote(record.name)
    commands = [
        f"tuner run experiment.yaml --study {study}",
        f"tuner export {study} -o best.yaml",
        "tuner train best.yaml",
    ]
    said = paragraph(
        "The first command repeats the search with the file below, the others train the winner "
        "again and compare its score to the last digit. The same experiment and seed give the same "
        "trials on the same kind of CPU with the same versions, whatever the number of workers"
        + (
            "; but this search was asynchronous, and none of its kind can be repeated exactly."
            if record.experiment.asynchronous
            else "."
        )
    )
    rows: list[tuple[str, object]] = [("seed", record.experiment.seed)]
    rows += [("study id", record.id), ("created", record.created)]
    rows += list(record.versions.items())
    return section(
        "reproduce",
        "How to reproduce it",
        code("\n".join(commands)),
        said,
        table(("", ""), rows),
        details("experiment.yaml", code(record.experiment.to_yaml())),
    )


def _how_default(default: Default) -> str:
    """Say what the default is, and whence its scores."""
    if default.trial is not None:
        return f"The {default.name} is trial {default.number}, and was not trained again."
    values = ", ".join(f"{name} {value}" for name, value in default.params.items())
    seeds = f"{len(default.scores)} seed{'s' * (len(default.scores) != 1)} of its own"
    return (
        f"The {default.name} has every searched hyperparameter as it is without a search "
        f"({values}), and was trained like the finalists, on {seeds}. It is one of them: where no "
        f"other has a better mean, it wins."
    )


def _opening(opening: Mapping[str, Any], of_series: bool, is_first: bool, of: int) -> str:
    """Say when the test part was opened, and for what."""
    how = "again" if not is_first else "once:" if of == 1 else "first"
    span = f", {opening['from']} to {opening['to']}" if opening["from"] is not None else ""
    unit = "rows" if of_series else "sequences"
    models = len(opening["scores"])
    return (
        f"The test part was opened {how} at {opening['opened_at']}, "
        f"after {opening['after_trials']:,} trials, for the configuration of "
        f"{tested_name(opening)} ({models} model{'s' * (models != 1)}, {opening['rows']:,} "
        f"{unit}{span})." + ("" if is_first else " Its rows were no longer unseen then.")
    )


def _span(part: dict[str, Any], split: Split) -> str:
    """Say from where to where a part goes, or how it came about."""
    if part["first"] is not None:
        return f"{part['first']} … {part['last']}"
    if part["unit"] == "row":
        return "of each series"
    if split.column is not None:
        return "by the column"
    given = part["name"] == "test" and split.test_file is not None
    return "of the test file" if given else "drawn by seed"


def _own_split(split: Split) -> list[str]:
    """Say what told the parts, where it was no share of the rows."""
    if split.column is not None:
        return [f"The column {split.column} of the data says which part a row is of."]
    said = []
    if split.test_file is not None:
        said.append(f"The test part is the file {PurePath(split.test_file).name}.")
    if split.group is not None:
        said.append(f"All sequences of one {split.group} are in one part.")
    return said


def _split_in_words(experiment: Experiment) -> str:
    split: Split = experiment.data.split
    if split.column is not None:
        return f"data.split: the column {split.column}."
    validation = (
        f"{experiment.n_folds} rolling origins" if experiment.n_folds > 1 else split.validation
    )
    test = split.test if split.test_file is None else PurePath(split.test_file).name
    return f"data.split: validation {validation}, test {test}; the rest was trained on."


ENDINGS = (".html", ".htm")

"""Of the names of reports."""

_MARK = '<meta name="generator" content="tuner report">'

_LINKS = ("scores", "best", "pictures", "search", "protocol", "failures", "reproduce")


def report(record: StudyRecord, pictures: Sequence[Picture] | None = None) -> str:
    """Return a study's result as an HTML page.

    It follows from the record alone: the same record gives the same text. A study without an end,
    without a test score or without a complete trial has a page too, which says so.

    Args:
        record: the study.
        pictures: of it, where they have been drawn already.
    """
    summary = summarize(record)
    shown = draw_all(record) if pictures is None else pictures
    body = [
        _head(record),
        verdict(record, summary),
        _links(has_failures=bool(failures := problems(record))),
        finalists(record, summary),
        best_configuration(record, summary),
        section("pictures", "Pictures", *map(figure, shown)),
        how_searched(record, summary),
        protocol(record),
        failures,
        reproduction(record),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'{_MARK}\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{_title(record.name)}\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(body)}</body>\n</html>\n"
    )


def is_report(path: Path, study: str) -> bool:
    """Return whether a file is a report of a study, which a newer one may replace."""
    try:
        with path.open(encoding="utf-8") as file:
            begins = file.read(1_000)
    except (OSError, ValueError):
        return False
    return _MARK in begins and _title(study) in begins


def _title(study: str) -> str:
    return f"<title>{text(f'{study}: what the search came to')}</title>"


def _head(record: StudyRecord) -> Html:
    experiment = record.experiment
    trials = trials_of(len(record.trained), experiment.n_trials)
    facts = (
        f"Experiment {experiment.name}, strategy {experiment.strategy.name}, seed "
        f"{experiment.seed}; begun {minute(record.created)}."
    )
    parts = [Html(f"<h1>{text(record.name)}</h1>\n"), paragraph(facts, kind="dim")]
    ended = record.ended or ("done" if record.test is not None else None)  # older ones lack it
    if ended != "done":
        how = "was interrupted" if record.ended == "interrupted" else "has not come to its end"
        parts.append(paragraph(f"This search {how}: {trials} are trained. "
                               f"What follows is how it stands.", kind="verdict"))  # fmt: skip
    return Html(f"<header>{''.join(parts)}</header>\n")


def _links(*, has_failures: bool) -> Html:
    names = [name for name in _LINKS if name != "failures" or has_failures]
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>\n' for name in names)
    return Html(f"<nav>{links}</nav>\n")
