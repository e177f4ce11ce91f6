"""What people call plain predictions, which is the best, and why some are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tuner.experiment.metrics import METRICS

__all__ = ["best_plain", "left_out_in_words", "plain_name", "ranked_plain"]

_NAMES = {"seasonal_arima": "seasonal ARIMA"}


def plain_name(name: str, metric: str) -> str:
    """Return what people call a plain prediction, without an article.

    Where the most probable class alone is scored, the shares of the classes are the majority.
    """
    if name == "linear":
        of_classes = metric in METRICS and METRICS[metric].of == "classes"
        return "logistic regression" if of_classes else "linear regression"
    if name == "class_frequencies" and metric in ("accuracy", "f1"):
        return "majority class"
    return _NAMES.get(name, name.replace("_", " "))


def best_plain(metric: str, scores: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Return the plain prediction with the best score by its name, and the score.

    None where none has a finite one. The first of equals is taken.
    """
    return next(iter(ranked_plain(metric, scores)), None)


def ranked_plain(metric: str, scores: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Return the plain predictions with a finite score, the best first."""
    finite = [(name, s) for name, s in scores.items() if s is not None and math.isfinite(s)]
    return sorted(finite, key=lambda of: METRICS[metric].sign * of[1])


def left_out_in_words(left_out: Mapping[str, str], metric: str) -> list[str]:
    """Return a line for each reason, with the plain predictions that are left out for it."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(plain_name(name, metric))
    return [f"without {' and '.join(of)}: {why}" for why, of in names.items()]
