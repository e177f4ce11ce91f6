"""Which differences between strategies are real, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuner.comparison.statistics import Difference

__all__ = ["p_text", "score_text", "verdict_of"]

_METHOD = "Mann-Whitney with Holm's correction"
_MOST_IN_DETAIL = 4  # differences, each with its numbers


def verdict_of(
    medians: Mapping[str, float],
    differences: Sequence[Difference],
    real: Sequence[Difference],
    *,
    metric: str,
    sign: int,
    n_seeds: int,
    fewest: int,
) -> str:
    """Say in a sentence which strategies are better than which.

    Args:
        medians: of the strategies' best scores, the best first.
        differences: of every two strategies.
        real: those of them that are more than chance.
        metric: what the scores are.
        sign: what a score is multiplied with so that less is better.
        n_seeds: how many searches each strategy made.
        fewest: how many it takes to tell any two apart.
    """
    names = list(medians)
    if n_seeds < fewest:
        who = f"{len(names)} strategies"
        return f"too few seeds to tell a difference from chance ({n_seeds}; {who} need {fewest})"
    if not real:
        return f"{_listed(names)} cannot be told apart with {n_seeds} seeds ({_METHOD})"

    in_detail = len(real) <= _MOST_IN_DETAIL

    def loser(difference: Difference) -> str:
        if not in_detail:
            return difference.worse
        gap = _gap(medians[difference.better], medians[difference.worse], metric, sign)
        size = gap or f"ahead in {difference.wins:.0%} of the pairs"
        return f"{difference.worse} ({size}, p {p_text(difference.adjusted)})"

    parts = []
    for betters, worses in _alike(names, real):
        wins = [d for d in real if d.better in betters]
        if len(betters) == 1:
            of = {d.worse: d for d in wins}
            parts.append(f"{betters[0]} is better than {_listed([loser(of[n]) for n in worses])}")
        else:
            surest = f" ({_at_most(wins)})" if in_detail else ""
            parts.append(f"{_listed(betters)} are better than {_listed(worses)}{surest}")
    if rest := len(differences) - len(real):
        others = "the other two" if rest == 1 else "others"
        parts.append(f"{others} cannot be told apart with {n_seeds} seeds")
    return f"{'; '.join(parts)} ({_METHOD}{'' if in_detail else f', {_at_most(real)}'})"


def _alike(names: Sequence[str], real: Sequence[Difference]) -> list[tuple[list[str], list[str]]]:
    """Return which strategies are better than which, those together that beat the same ones."""
    found: list[tuple[list[str], list[str]]] = []
    for name in names:
        beaten = {d.worse for d in real if d.better == name}
        worses = [n for n in names if n in beaten]
        same = next((betters for betters, others in found if others == worses), None)
        if same is not None:
            same.append(name)
        elif worses:
            found.append(([name], worses))
    return found


def score_text(score: float) -> str:
    """Write a score with four significant digits; `none` for an infinitely bad one."""
    if not math.isfinite(score):
        return "none"
    return f"{score:.4g}" if abs(score) < 10_000 else f"{score:.0f}"


def p_text(p_value: float) -> str:
    """Write what follows `p`: `= 0.012`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _at_most(differences: Sequence[Difference]) -> str:
    p_value = max(d.adjusted for d in differences)
    return f"p {p_text(p_value).replace('=', '<=')}"


def _gap(better: float, worse: float, metric: str, sign: int) -> str:
    """Say by how much a median is better; nothing where it is not."""
    if not sign * better < sign * worse:
        return ""
    if sign > 0 and better > 0 and math.isfinite(worse):  # an error, of which shares make sense
        percent = 100 * (worse - better) / worse
        return f"median {metric} {percent:{'.0f' if percent >= 10 else '.2g'}} % lower"
    return f"median {metric} {score_text(better)} against {score_text(worse)}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
