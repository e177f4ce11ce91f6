"""The first part of the page: the verdict, and every score that speaks for or against it."""

from __future__ import annotations

from typing import Any

from tuner.report.drawing import number
from tuner.report.markup import Html, paragraph, section, table, text
from tuner.search.records import Status, StudyRecord

__all__ = ["finalists", "verdict"]


def verdict(record: StudyRecord, summary: dict[str, Any]) -> Html:
    """Return the verdict in a sentence, and the scores as large numbers."""
    sentence, kind = _sentence(summary)
    return Html(f"{paragraph(sentence, kind=f'verdict {kind}'.strip())}{_numbers(summary)}")


def finalists(record: StudyRecord, summary: dict[str, Any]) -> Html:
    """Return the table of the retrained configurations, and those of the plain predictions."""
    metric = summary["metric"]
    rows = [
        (
            f"trial {finalist['trial']}",
            number(finalist["search_score"]),
            number(finalist["mean"]),
            number(finalist["std"], 2),
            _gap(finalist["search_score"], finalist["mean"]),
            ", ".join(map(number, finalist["scores"])),
        )
        for finalist in summary["finalists"]
    ]
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
    elif record.experiment.finalists.top == 0:
        parts.append(paragraph("No configuration was retrained on fresh seeds: finalists.top is 0. "
                               "The best score of the search is partly luck."))  # fmt: skip
    else:
        parts.append(paragraph("No configuration has been retrained on fresh seeds yet."))
    parts += [Html("<h3>Beside plain predictions</h3>\n"), _baselines(summary)]
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
    sentence = summary["verdict"][:1].upper() + summary["verdict"][1:] + "."
    kind = "good" if summary["verdict"].startswith("better") else "bad"
    if best is not None and test["configuration"] != best["trial"]:
        sentence += (
            f" That is the configuration of trial {test['configuration']}: the test part was "
            f"opened after {test['after_trials']} trials and is not opened again."
        )
    elif test["after_trials"] < summary["trials"]["trained"]:
        sentence += f" The test part was opened after {test['after_trials']} trials."
    return sentence, kind


def _numbers(summary: dict[str, Any]) -> Html:
    metric, best, test = summary["metric"], summary["best"], summary["test"]
    shown: list[tuple[str, str]] = []
    if test is not None:
        shown.append((_with_std(test), f"{metric} on the test part"))
        pick = max if summary["direction"] == "maximize" else min
        name, score = pick(test["baselines"].items(), key=lambda item: float(item[1]))
        shown.append((number(score), f"{name.replace('_', ' ')} on the test part"))
    if best is not None:
        if best["mean"] is not None:
            repeats = len(summary["finalists"][0]["scores"])
            seeds = f"{repeats} fresh seed{'s' * (repeats != 1)}"
            shown.append((_with_std(best), f"validation {metric} on {seeds}"))
        shown.append((number(best["search_score"]), f"validation {metric} in the search"))
    cells = "".join(f"<div><b>{text(n)}</b><span>{text(what)}</span></div>\n" for n, what in shown)
    return Html(f'<div class="numbers">{cells}</div>\n' if cells else "")


def _baselines(summary: dict[str, Any]) -> Html:
    best, test = summary["best"], summary["test"]
    on_test = test["baselines"] if test else {}
    rows: list[tuple[str, str, str]] = []
    if best is not None:
        mean = best["mean"] if best["mean"] is not None else best["search_score"]
        same = test is not None and test["configuration"] == best["trial"]
        rows.append((f"the winner (trial {best['trial']})", number(mean),
                     number(test["mean"]) if same else "–"))  # fmt: skip
        if test is not None and not same:
            rows.append((f"trial {test['configuration']}", "–", number(test["mean"])))
    names = dict.fromkeys([*summary["baselines"], *on_test])
    rows += [
        (name.replace("_", " "), number(summary["baselines"].get(name)), number(on_test.get(name)))
        for name in names
    ]
    metric = summary["metric"]
    better = "more" if summary["direction"] == "maximize" else "less"
    return Html(
        table(("", f"validation {metric}", f"test {metric}"), rows, numbers=2)
        + paragraph(f"{better.capitalize()} is better.", kind="dim")
    )


def _with_std(scores: dict[str, Any]) -> str:
    if scores["mean"] is None:
        return "not finite"
    std = scores["std"]
    return number(scores["mean"]) + (f" ± {number(std, 2)}" if std is not None else "")


def _gap(search: float | None, mean: float) -> str:
    if search is None:
        return "–"
    return f"{mean - search:+.3g}" + (f" ({(mean / search - 1):+.0%})" if search else "")
