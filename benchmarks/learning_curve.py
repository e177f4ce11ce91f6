"""A pruner that extrapolates learning curves, calibrated by the trials of its own study.

The idea is that of Swersky, Snoek and Adams (Freeze-Thaw Bayesian Optimization, 2014,
arXiv:1406.3896), Domhan, Springenberg and Hutter (IJCAI 2015) and Klein et al. (ICLR 2017): stop
a training whose end is, with high probability, worse than what is known already. They fit models
of curves; here the told trials are the model. At every epoch, the share of the metric that a
trial still gains is taken from what complete trials gained after the same epoch, so it has no
parameter of a data set. See pruning.py for how it compares.
"""

from __future__ import annotations

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


class LearningCurvePruner(BasePruner):
    """Stops a trial whose predicted end is worse than a quantile of the complete trials' ends.

    The metric is positive and minimized, as on the recorded landscapes.

    Args:
        quantile: of the gains of complete trials, from 0 (as if it gained as much as the one that
            gained most) to 1.
        bar: quantile of the complete trials' ends that the predicted end must reach, 0 to 1.
        n_startup_trials: complete trials before any is pruned.
        n_warmup_steps: epochs that every trial gets.
    """

    def __init__(
        self,
        quantile: float = 0.1,
        bar: float = 0.4,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 2,
    ) -> None:
        self._quantile, self._bar = quantile, bar
        self._n_startup_trials, self._n_warmup_steps = n_startup_trials, n_warmup_steps

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether the trial should stop."""
        step = trial.last_step
        if step is None or step < self._n_warmup_steps:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < max(1, self._n_startup_trials):
            return False
        curves = [list(other.intermediate_values.values()) for other in complete]
        ends = np.array([min(curve) for curve in curves])
        so_far = np.array([min(curve[: step + 1]) for curve in curves])
        kept = np.quantile(ends / so_far, self._quantile)
        best = min(trial.intermediate_values.values())
        return bool(best * kept > np.quantile(ends, self._bar))
