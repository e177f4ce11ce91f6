"""How much each hyperparameter mattered: Optuna's fANOVA."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.errors import RunError
from tuner.report.drawing import POINT, Picture, label, near, new_figure, png, tidy
from tuner.strategies.space import to_distributions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["importances", "importances_figure", "importances_picture"]

_FEWEST = 10  # trials that a forest can learn anything from
# Deeper trees, and more of them, take minutes on a thousand trials and say the same to 1 %.
_N_TREES, _MAX_DEPTH = 32, 8


def importances(record: StudyRecord) -> dict[str, float]:
    """Return the share of each searched hyperparameter in the variance of the objective.

    The shares add up to one; the largest comes first. An objective that lies far off counts as
    the farthest that does not: else a few runs that went wrong would be all that mattered.

    Raises:
        RunError: they cannot be told, and why.
    """
    distributions = to_distributions(record.experiment.search_space)
    names = [name for name, distribution in distributions.items() if not distribution.single()]
    trials = [t for t in record.trained if _counts(t) and all(n in t.params for n in names)]
    if not names:
        raise RunError("Nothing was searched.")
    if len(trials) < _FEWEST:
        raise RunError(f"Too few complete trials: {len(trials)} of at least {_FEWEST}.")
    if len({t.value for t in trials}) == 1:
        raise RunError("Every trial has the same objective: nothing made a difference.")
    if len(names) == 1:
        raise RunError(
            f"Only {names[0]} was searched: all that differs is due to it, or to chance."
        )

    from optuna import logging
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.study import create_study
    from optuna.trial import create_trial

    told = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)  # that a study is made interests nobody
    try:
        study = create_study(direction=record.experiment.objective.direction)
    finally:
        logging.set_verbosity(told)
    searched = {name: distributions[name] for name in names}
    values = [t.value for t in trials if t.value is not None]
    study.add_trials(
        create_trial(
            params={name: t.params[name] for name in names}, distributions=searched, value=value
        )
        for t, value in zip(trials, near(values, record.sign), strict=True)
    )
    evaluator = FanovaImportanceEvaluator(n_trees=_N_TREES, max_depth=_MAX_DEPTH, seed=0)
    try:
        found = get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # no tree found a difference
        raise RunError("The objective differs too little to tell what made it differ.") from None
    return {name: float(share) for name, share in found.items()}


def importances_picture(record: StudyRecord) -> Picture:
    """Draw the importances."""
    name, title = "importances", "Hyperparameter importances"
    try:
        found = importances(record)
    except RunError as error:
        return Picture(name, title, str(error))
    about = (
        "The share of each hyperparameter in the variance of the objective over the complete "
        "trials (fANOVA); what lies far off counts as the edge. With few trials they are rough."
    )
    return Picture(name, title, about, png(importances_figure(found)))


def importances_figure(found: dict[str, float]) -> Figure:
    """Return the picture as a figure."""
    figure = new_figure(0.8 + 0.32 * len(found))
    axes = figure.add_subplot()
    bars = axes.barh([label(n) for n in found], [100 * v for v in found.values()], color=POINT)
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="share of the variance of the objective (%)")
    axes.set_xlim(0, 112 * max(found.values()))
    tidy(axes)
    axes.grid(visible=False, axis="y")
    return figure


def _counts(trial: TrialRecord) -> bool:
    value = trial.value
    return trial.status is Status.COMPLETE and value is not None and math.isfinite(value)
