"""The result of a study as one self-contained HTML page, with all plots."""

from __future__ import annotations

import html
import importlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tuner.coordination.finalists import default_of, tested_name
from tuner.data.baselines import baseline_name
from tuner.errors import one_line
from tuner.experiment import CategoricalDomain, Domain, Split, flat
from tuner.journal.records import ModelScores, Status, StudyRecord, TrialRecord
from tuner.report import predictions, trials
from tuner.report.plotting import Picture, number
from tuner.report.rendering import duration, make_environment, with_std
from tuner.results.differences import ENOUGH
from tuner.results.export import made, study_artifacts
from tuner.results.summary import Configuration, Summary, minute, summarize
from tuner.results.verdict import Worth, best_baseline, gap_in_words, left_out_in_words, no_verdict

ENDINGS = (".html", ".htm")
"""File name suffixes of reports."""

PLOTS: Mapping[str, Callable[[StudyRecord], Picture | None]] = {
    "forecast": predictions.forecast_picture,
    "steps": predictions.step_picture,
    "residuals": predictions.residuals_picture,
    "confusion": predictions.confusion_picture,
    "pareto_front": trials.front_picture,
    "history": trials.history_picture,
    "importances": trials.importances_picture,
    "parallel_coordinates": trials.parallel_picture,
    "slices": trials.slices_picture,
    "swarm_spread": trials.spread_picture,
    "learning_curves": trials.curves_picture,
}
"""Functions that draw the plots, by the plot's name; None for a study without such a plot."""

_GENERATOR = "tuner report"
_TITLE, _EARLIER_TITLES = "result of the search", ("what the search came to",)
_SETTINGS = ("strategy", "budget", "pruner", "objective", "finalists", "training")
_MOST_NAMED = 8  # trials with the same reason
_MOST_PARTS = 30  # rows of a table
_PARTS = {"step": "step of the horizon"}


def draw_all(record: StudyRecord) -> list[Picture]:
    """Draw the plots of a study, including those that have no data yet."""
    return [picture for draw in PLOTS.values() if (picture := draw(record)) is not None]


_LATE = ("jinja2", "matplotlib.backends.backend_agg", "matplotlib.figure")


def import_for_files() -> None:
    """Import what the files of `final_artifacts` need, which the end would wait for."""
    for module in _LATE:
        importlib.import_module(module)
    from optuna.importance import FanovaImportanceEvaluator

    FanovaImportanceEvaluator()  # imports scikit-learn


def final_artifacts(record: StudyRecord) -> dict[str, str | bytes | Exception]:
    """Return the files of a finished study for MLflow: texts, report and plots, by file name.

    The value is an exception if a file cannot be made; other files are not affected. Equal records
    give equal bytes. Drawing takes one to three seconds.
    """
    pictures: list[Picture] = []
    drawn: dict[str, bytes | Exception] = {}
    for name, draw in PLOTS.items():
        file, picture = f"pictures/{name}.png", made(partial(draw, record))
        if isinstance(picture, Exception):
            drawn[file] = picture
            why = f"It could not be drawn: {one_line(picture)}"
            pictures.append(Picture(name, name.replace("_", " ").capitalize(), why))
        elif picture is not None:
            pictures.append(picture)
            if picture.png is not None:
                drawn[file] = picture.png
    return {
        **study_artifacts(record),
        "report.html": made(lambda: report(record, pictures)),
        **drawn,
    }


def is_report(path: Path, study: str, study_id: str | None = None) -> bool:
    """Return whether a file is a report of a study, which may be replaced by a newer one.

    Args:
        path: the file.
        study: name of the study.
        study_id: its id, as another service may have a study of the same name; None for any one.
            Reports of tuner 0.2 have no id.
    """
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(1_000)
    except (OSError, ValueError):
        return False
    title = re.search("<title>(.*?)</title>", head)
    known = [f"{study}: {end}" for end in (_TITLE, *_EARLIER_TITLES)]
    if study_id is not None and id_of(head) not in (None, study_id):
        return False
    return f'"{_GENERATOR}"' in head and title is not None and html.unescape(title[1]) in known


def id_of(text: str) -> str | None:
    """Return the id of the study that a report, or its beginning, is about; None without one."""
    found = re.search('<meta name="study" content="([^"]*)">', text)
    return None if found is None else html.unescape(found[1])


def report(record: StudyRecord, pictures: Sequence[Picture] | None = None) -> str:
    """Return the result of a study, finished or not, as an HTML page.

    Equal records give equal text.

    Args:
        record: the study.
        pictures: its plots if they are drawn already.
    """
    summary = summarize(record)
    best, test = summary.best, summary.test
    raw = record.experiment.to_dict()
    settings = dict(flat({key: raw[key] for key in _SETTINGS}))
    settings |= {"asynchronous": record.experiment.asynchronous, "seed": record.experiment.seed}
    space = record.experiment.search_space
    searched = best.params if best else {}
    whole = (best.hyperparameters if best else None) or {}
    runs = [*record.trained, *record.finalists]
    return render(
        "study.html",
        generator=_GENERATOR,
        title=f"{record.name}: {_TITLE}",
        record=record,
        summary=summary,
        begun=minute(record.created),
        # Older records do not tell how a search ended.
        ended=record.ended or ("done" if test is not None else None),
        progress=_trials_of(len(record.trained), record.experiment.n_trials),
        verdict=summary.verdict or no_verdict(summary.trials, has_best=best is not None),
        verdict_class=_verdict_class(summary),
        best_baseline=_best_baseline(summary),
        finalists=_finalists(summary),
        refit=test.refit if test else None,
        baselines=_baselines(summary),
        left_out=left_out_in_words(summary.left_out, summary.metric),
        by_part=_by_part(summary),
        # A default may set a hyperparameter that is no key of the space.
        searched=[
            (name, _value(value), _domain(space[name]) if name in space else "–")
            for name, value in searched.items()
        ],
        fixed=[(name, _value(value)) for name, value in whole.items() if name not in searched],
        pictures=draw_all(record) if pictures is None else pictures,
        n_trials=_trials_of(summary.trials["trained"], summary.budget, "at most "),
        outcomes=_outcomes(summary.trials),
        duration=duration(record.seconds),
        space=[(name, _domain(domain)) for name, domain in space.items()],
        settings=[(key, _value(value)) for key, value in settings.items()],
        parts=_parts(record),
        default=default_of(record),
        tested_names=list(map(tested_name, summary.openings)),
        failures=_by_reason(t for t in runs if t.status is Status.FAILED),
        lost=[f"{t.key.name}: {reason}" for t in runs for reason in t.lost],
        versions=[
            ("seed", record.experiment.seed),
            ("study id", record.id),
            ("created", record.created),
            *record.versions.items(),
        ],
    )


def _trials_of(trained: int, most: int | None, at_most: str = "") -> str:
    return f"{trained:,} trials" if most is None else f"{trained:,} of {at_most}{most:,} trials"


def _outcomes(counts: Mapping[str, int]) -> str:
    parts = [f"{counts[s.value]:,} {s.value}" for s in Status if counts[s.value]]
    if counts["repeats"]:
        parts.append(f"{counts['repeats']:,} repeated an earlier one and took its outcome")
    return f": {', '.join(parts)}" if parts else ""


def _verdict_class(summary: Summary) -> str:
    if summary.worth in (Worth.PAID, Worth.BETTER) and summary.test is not None:
        # With few repeats it may be luck.
        return "good" if len(summary.test.judged.scores) >= ENOUGH else ""
    return "bad" if summary.worth is Worth.USELESS else ""


def _best_baseline(summary: Summary) -> tuple[str, float] | None:
    """Return name and test score of the best baseline."""
    if summary.test is None:
        return None
    best = best_baseline(summary.metric, summary.test.judged.baselines)
    return None if best is None else (baseline_name(best[0], summary.metric), best[1])


def _finalists(summary: Summary) -> list[tuple[str, ...]]:
    default = summary.default
    rows: list[tuple[str, ...]] = [
        (
            _name(finalist, default),
            number(finalist.search_score),
            number(finalist.mean),
            number(finalist.std, 2),
            gap_in_words(summary.metric, finalist.gap, finalist.search_score) or "–",
            ", ".join(map(number, finalist.scores)),
        )
        for finalist in summary.finalists
    ]
    if rows and default and default.trial not in [f.trial for f in summary.finalists]:  # it failed
        scores = ", ".join(map(number, default.scores)) or "–"
        rows.append((default.name, "–", number(default.mean), number(default.std, 2), "–", scores))
    return rows


def _baselines(summary: Summary) -> list[tuple[str, ...]]:
    """Return a row for each model: its name, validation score, test scores.

    With a refit there are two test scores, before and after it.
    """
    best, test, default, metric = summary.best, summary.test, summary.default, summary.metric
    tested: list[ModelScores] = [scores for scores in (test, test and test.refit) if scores]
    none = ("–",) * max(1, len(tested))
    rows: list[tuple[str, ...]] = []
    if best is not None:
        validated = with_std(best) if best.mean is not None else number(best.search_score)
        own = tuple(map(with_std, tested))
        winner = f"the winner ({_name(best, default)})"
        rows.append((winner, validated, *(own if best.tested else none)))
        if test is not None and not best.tested:
            rows.append((tested_name(test), "–", *own))
    if any(scores.ensemble is not None for scores in tested):
        models = f"the ensemble of its {len(tested[0].scores)} models"
        rows.append((models, "–", *(number(scores.ensemble) for scores in tested)))
    defaults = (default, *(scores.default for scores in tested))
    name = next((scores.name for scores in defaults if scores), None)
    if name is not None and not (best and best.is_default):
        validated, *others = [with_std(s) if s and s.scores else "–" for s in defaults]
        rows.append((name, validated, *(others or none)))
    plain = (summary.baselines, *(scores.baselines for scores in tested))
    for name in dict.fromkeys(name for scores in plain for name in scores):
        shown = [number(scores.get(name)) for scores in plain]
        rows.append((baseline_name(name, metric), *shown, *none[: max(0, 2 - len(plain))]))
    for of_level in zip(*(scores.intervals for scores in tested), strict=False):
        shares = [f"{100 * interval.coverage:.3g} %" for interval in of_level]
        rows.append((f"{of_level[0].level:g} interval: rows within", "–", *shares))
    return rows


def _by_part(summary: Summary) -> list[dict[str, Any]]:
    """Return a table for each grouping of the test rows; the worst rows are first."""
    tables = []
    for kind, rows in (summary.test.by if summary.test else {}).items():
        if len(rows) < 2 or (kind == "step" and len(rows) >= predictions.FEWEST_STEPS):
            continue  # there is a plot
        names = [name for name in rows[0] if name not in ("name", "rows")]
        rises = summary.direction == "maximize" or names[-1] == "f1"

        def badness(row: Mapping[str, Any], key: str = names[-1], rises: bool = rises) -> float:
            value = row[key]
            return -float("inf") if value is None else value if rises else -value

        shown = rows if kind == "step" else sorted(rows, key=badness)
        titles = [summary.metric if name == "score" else name for name in names]
        cells = [
            (row["name"], f"{row['rows']:,}", *(number(row[name]) for name in names))
            for row in shown[:_MOST_PARTS]
        ]
        headings = (_PARTS.get(kind, kind), "values", *titles)
        tables.append({"headings": headings, "rows": cells, "n_more": len(rows) - _MOST_PARTS})
    return tables


def _name(configuration: Configuration, default: Configuration | None) -> str:
    if default and configuration.trial is not None and default.trial == configuration.trial:
        return f"{configuration.name}, the {default.name}"
    return configuration.name


def _by_reason(failed: Iterable[TrialRecord]) -> list[tuple[str, str, str]]:
    """Return reason, count and names of failed trainings, the most frequent reason first."""
    trainings: dict[str, list[str]] = defaultdict(list)
    for trial in failed:
        reason = (trial.outcome.reason if trial.outcome else None) or "unknown"
        trainings[reason].append(trial.key.name)
    rows = []
    for reason, names in sorted(trainings.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        rows.append((reason, str(len(names)), ", ".join(names[:_MOST_NAMED]) + more))
    return rows


def _domain(domain: Domain) -> str:
    if isinstance(domain, CategoricalDomain):
        return ", ".join(map(str, domain.choices))
    step = f", step {domain.step:g}" if domain.step not in (None, 1) else ""
    return f"{domain.low:g} to {domain.high:g}{step}{', log' if domain.log else ''} ({domain.type})"


def _value(value: Any) -> str:
    return number(value, 6) if isinstance(value, float) else str(value)


def _parts(record: StudyRecord) -> list[tuple[str, str, str]]:
    """Return name, size and span of the training, validation and test set."""
    parts = record.data.get("parts") or (record.test.parts if record.test else ())
    split = record.experiment.data.split
    return [(p["name"], f"{p['count']:,} {p['unit']}s", _span(p, split)) for p in parts]


def _span(part: Mapping[str, Any], split: Split) -> str:
    if part["first"] is not None:
        return f"{part['first']} … {part['last']}"
    if part["unit"] == "row":
        return "of each series"
    if split.column is not None:
        return "by the column"
    given = part["name"] == "test" and split.test_file is not None
    return "of the test file" if given else "drawn by seed"


def render(template: str, **values: Any) -> str:
    """Render a file of `templates/`; all values are escaped."""
    return make_environment("tuner.report").get_template(template).render(values)
