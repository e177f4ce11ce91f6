"""The first part of the page: the verdict, and every score that speaks for or against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.coordination.records import Status, StudyRecord
from tuner.report.by_part import by_part
from tuner.report.drawing import number
from tuner.report.markup import Html, items, paragraph, section, table, text
from tuner.results.differences import ENOUGH, gap_in_words
from tuner.results.judged import has_refit, judged
from tuner.results.plain import best_plain, left_out_in_words, plain_name
from tuner.results.verdict import Worth

__all__ = ["finalists", "verdict"]

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
