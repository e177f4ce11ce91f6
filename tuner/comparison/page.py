"""A comparison as one page that needs nothing else."""

from __future__ import annotations

from tuner.comparison.comparison import Comparison, Row
from tuner.comparison.statistics import ALPHA
from tuner.comparison.verdict import score_text
from tuner.report.drawing import Picture
from tuner.report.markup import Html, code, details, figure, items, paragraph, section, table, text
from tuner.report.page_style import STYLE

__all__ = ["MARK", "page"]

MARK = '<meta name="generator" content="tuner compare">'
"""What tells such a page from any other file."""


def page(comparison: Comparison, curves: Picture, command: str) -> str:
    """Return the page; `command` makes it again."""
    names = " and ".join((", ".join(r.strategy for r in comparison.rows[:-1]),
                          comparison.rows[-1].strategy))  # fmt: skip
    title = text(f"{comparison.experiment.name}: {names}")
    facts = (
        f"{len(comparison.rows)} strategies, {len(comparison.seeds)} searches each on the seeds "
        f"{comparison.seeds[0]} to {comparison.seeds[-1]}, {comparison.n_trials:,} trials a search."
    )
    kind = "verdict good" if comparison.real else "verdict"
    body = [
        Html(f"<header><h1>{title}</h1>\n{paragraph(facts, kind='dim')}"),
        paragraph(f"{comparison.verdict}.", kind=kind),
        Html("</header>\n"),
        section("scores", "Scores", _scores(comparison)),
        section("pictures", "Curves", figure(curves)),
        section("differences", "Differences", _differences(comparison)),
        section("protocol", "How it was compared", items(_protocol(comparison))),
        section("reproduce", "Again", code(command)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'{MARK}\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(body)}</body>\n</html>\n"
    )


def _scores(comparison: Comparison) -> Html:
    metric = comparison.metric
    heading = ("strategy", f"median {metric}", confidence_text(comparison.rows[0]), "seconds")
    rows = [
        (row.strategy, score_text(row.median), interval_text(row), f"{row.seconds:,.1f}")
        for row in comparison.rows
    ]
    each = [
        (search.study, score_text(search.score), f"{search.seconds[-1]:,.1f}")
        for row in comparison.rows
        for search in row.searches
    ]
    searches = table(("search", f"best {metric}", "seconds"), each, numbers=2)
    beside = comparison.to_beat
    said = paragraph(f"{beside[:1].upper()}{beside[1:]}.", kind="dim") if beside else ""
    return Html(table(heading, rows, numbers=3) + said + details("Every search", searches))


def _differences(comparison: Comparison) -> Html:
    heading = ("the better over the worse", "wins", "p", "corrected p", "")
    rows = [
        (f"{d.better} over {d.worse}", f"{d.wins:.2f}", f"{d.p_value:.2g}", f"{d.adjusted:.2g}",
         "real" if d in comparison.real else "")
        for d in comparison.differences
    ]  # fmt: skip
    about = (
        "Wins is the share of all pairs of a search of the one and a search of the other in which "
        "the one has the better score; a draw is half a win. At 0.5 they are level."
    )
    return Html(table(heading, rows, numbers=3) + paragraph(about, kind="dim"))


def _protocol(comparison: Comparison) -> list[str]:
    metric, budget = comparison.metric, comparison.experiment.budget
    options = "; ".join(f"{row.strategy} ({_options(row)})" for row in comparison.rows)
    return [
        f"Every search trained {comparison.n_trials:,} trials of up to {budget.epochs:,} epochs, "
        f"however they ended. A repeated configuration is not trained and does not count.",
        f"A search's score is the best validation {metric} of its complete trials. It is the best "
        f"of many noisy ones, so it is optimistic, alike for all strategies: it ranks them, and "
        f"is no forecast of the error on new data.",
        "The test part was not opened, and no configuration was trained again.",
        f"Settings: {options}.",
        "The interval of a median lies between two of the scores, counted from the outermost; "
        "its confidence is exact, whatever the scores' distribution.",
        f"Two strategies differ where Mann and Whitney's U test, two-sided and not paired by "
        f"seeds, is below {ALPHA:g} after Holm's correction for all pairs. Where no strategy is "
        f"better than another, one is found in {100 * ALPHA:.0f} % of all comparisons at most. "
        f"That two cannot be told apart does not show that they are equal.",
        "Seconds are those of the search, without the pauses between interrupted runs. They "
        "depend on the machine, on the number of workers and on how many trials a strategy asks "
        "for together.",
    ]


def _options(row: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.options.items())


def interval_text(row: Row) -> str:
    """Write where the median lies."""
    low, high = row.interval.low, row.interval.high
    return score_text(low) if low == high else f"{score_text(low)} to {score_text(high)}"


def confidence_text(row: Row) -> str:
    """Write what kind of interval that is: of 95 %, or of less where there are few seeds."""
    return f"{int(100 * min(row.interval.confidence, 0.95))} % interval"
