"""What the test part says of a search, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tuner.coordination.records import StudyRecord
from tuner.experiment.metrics import METRICS
from tuner.experiment.untuned import MODEL_NAMES
from tuner.results.differences import ENOUGH, Difference, compare, percent, relative

__all__ = ["Verdict", "Worth", "best_plain", "verdict_of"]

_WRITTEN = {
    "r2": "R²", "f1": "F1", "smape": "sMAPE", "pinball": "pinball loss", "accuracy": "accuracy",
    "cross_entropy": "cross entropy",
}  # fmt: skip


class Worth(StrEnum):
    """What a search was worth, by rows that it never saw."""

    PAID = "paid"  # the winner is better than the untuned default, and than any plain prediction
    UNPAID = "unpaid"  # better than plain predictions, and no better than the default
    BETTER = "better"  # better than plain predictions, without a default to compare with
    USELESS = "useless"  # no better than a plain prediction, or absurd
    UNKNOWN = "unknown"  # there is nothing to compare with


@dataclass(frozen=True)
class Verdict:
    """A sentence, and what it comes to."""

    sentence: str  # without a capital and a full stop
    worth: Worth


def verdict_of(record: StudyRecord) -> Verdict | None:
    """Judge the configuration for which the test part was last opened; None before it was.

    With five repeats or more, what lies within their noise counts as no better; with fewer, what
    is said to be better is said to be no more than that.
    """
    test = record.test
    if test is None:
        return None
    verdict = _judged(record, test)
    if verdict.worth not in (Worth.PAID, Worth.BETTER):
        return verdict
    compared = [test["scores"], (test.get("default") or {}).get("scores")]
    repeats = min(len(scores) for scores in compared if scores)
    if repeats >= ENOUGH:
        return verdict
    few = "1 repeat is" if repeats == 1 else f"{repeats} repeats are"
    return replace(verdict, sentence=f"{verdict.sentence}; {few} too few to rule out luck")


def _judged(record: StudyRecord, test: Mapping[str, Any]) -> Verdict:
    if test["mean"] is None:
        said = "the forecasts of the test part are beyond all bounds: do not use this model"
        return Verdict(said, Worth.USELESS)
    seed, metric, scores = [record.experiment.seed], test["metric"], test["scores"]
    plain, than_plain = best_plain(test), ""
    if plain is not None:
        name, score = plain
        over = compare(metric, scores, score, seed)
        if over.gain <= 0 or over.real is False:
            noise = " (within noise)" if over.gain > 0 else ""
            said = f"no better than {name}{noise}: do not use {_model(record, test)} here"
            return Verdict(said, Worth.USELESS)
        than_plain = _relation(over, name)
    default = test.get("default")
    if default is None:
        if plain is None:
            return Verdict("there is nothing to compare the test score with", Worth.UNKNOWN)
        searched = bool(record.experiment.search_space)
        why = "no default was trained to compare with" if searched else "nothing was searched"
        return Verdict(f"{than_plain} ({_written(metric)}); {why}", Worth.BETTER)
    return _beside_default(metric, scores, default, than_plain, seed)


def best_plain(test: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the plain prediction with the best score, and the score; None where none has one."""
    sign = METRICS[test["metric"]].sign
    scores = {name: s for name, s in test["baselines"].items() if s is not None}
    finite = {name: s for name, s in scores.items() if math.isfinite(s)}
    if not finite:
        return None
    best = min(finite, key=lambda name: sign * finite[name])
    return best.replace("_", " "), finite[best]


def _beside_default(
    metric: str,
    scores: list[float],
    default: Mapping[str, Any],
    than_plain: str,
    seed: list[int],
) -> Verdict:
    """Judge a winner that is better than any plain prediction, where there is one."""
    name, written = f"the {default['name']}", f" ({_written(metric)})"
    also = f"{than_plain}{written}" if than_plain else ""
    if default["is_winner"]:
        said = f"the search did not pay: {name} won"
        return Verdict(f"{said}, {also}" if also else said, Worth.UNPAID)
    if default["mean"] is None:
        said = f"the search paid: {name} came to nothing"
        return Verdict(f"{said}; {also}" if also else said, Worth.PAID)
    over = compare(metric, scores, default["scores"], seed)
    if over.gain > 0 and over.real is not False:
        said = f"the search paid: {_relation(over, name)}{written}"
        return Verdict(f"{said}, and {than_plain}" if than_plain else said, Worth.PAID)
    how = "within noise of" if over.real is False else "no better than"
    said = f"the search did not pay: {how} {name}"
    return Verdict(f"{said}, but {also}" if also else said, Worth.UNPAID)


def _relation(difference: Difference, name: str) -> str:
    """Say how much better a score is than that of `name`."""
    share = relative(difference.metric, difference.gain, difference.second)
    if share is None:
        return f"{difference.first:.4g} against {difference.second:.4g} of {name}"
    above = "above" if METRICS[difference.metric].maximize else "below"
    return f"{percent(share)} % {above} {name}"


def _model(record: StudyRecord, test: Mapping[str, Any]) -> str:
    """Return what people call the tested model, with an article."""
    tested = next((t for t in record.trials if t.number == test["configuration"]), None)
    params = dict(tested.params) if tested else {}
    if test["configuration"] is None:  # no trial of the search: the default won
        params = test["default"]["params"]
    name = MODEL_NAMES[record.experiment.configuration(params)["cell"]]
    return f"{'an' if name[0] in 'LR' else 'a'} {name}"


def _written(metric: str) -> str:
    return _WRITTEN.get(metric, metric.upper())
