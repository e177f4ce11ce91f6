"""The result as one page that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.coordination.records import StudyRecord
from tuner.report.drawing import Picture
from tuner.report.markup import Html, figure, paragraph, section, text
from tuner.report.page_style import STYLE
from tuner.report.pictures import draw_all
from tuner.report.protocol import protocol, reproduction
from tuner.report.result import finalists, verdict
from tuner.report.searched import best_configuration, how_searched, problems, trials_of
from tuner.results.summary import minute, summarize

__all__ = ["ENDINGS", "is_report", "report"]

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
