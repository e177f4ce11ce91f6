"""Trains one configuration, and says whether an exported score came out again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tuner.data.preparing import Prepared, prepare
from tuner.executors import LocalExecutor
from tuner.experiment import Experiment
from tuner.jobs import Outcome
from tuner.search.opening import library_versions
from tuner.search.work import run_jobs, train_job

__all__ = ["Training", "train_again"]


@dataclass(frozen=True)
class Training:
    """One training run of an experiment's fixed hyperparameters."""

    experiment: Experiment
    data: Prepared
    outcome: Outcome

    @property
    def reproduced(self) -> bool | None:
        """Whether the recorded score came out, to the last digit; None if there is none."""
        recorded = self.experiment.recorded
        return None if recorded is None else self.outcome.objective == recorded.score

    def differences(self) -> list[str]:
        """Return what is not as it was when the score was recorded."""
        recorded = self.experiment.recorded
        if recorded is None:
            return []
        found = []
        if self.data.series.sha256 != recorded.data_sha256:
            then, now = recorded.rows, self.data.rows
            how = (
                f"{then} rows then, {now} now" if then != now else f"other values in its {now} rows"
            )
            found.append(f"the data has changed ({how})")
        installed = library_versions()
        found += [
            f"{name} is {installed.get(name, 'missing')}, was {version}"
            for name, version in recorded.versions.items()
            if installed.get(name) != version
        ]
        return found


def train_again(experiment: Experiment) -> Training:
    """Train an experiment's hyperparameters once, on its recorded seed if it has one.

    Raises:
        DataError: the data cannot be used.
        RunError: the training failed.
    """
    seed = experiment.recorded.seed if experiment.recorded else experiment.seed
    with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
        data = prepare(experiment, Path(folder))
        executor = LocalExecutor(1)
        try:
            job = train_job(experiment, data.ref, "training", {}, seed, keep_weights=True)
            (outcome,) = run_jobs(executor, [job])
        finally:
            executor.close()
    return Training(experiment, data, outcome)
