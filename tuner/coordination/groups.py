"""Which trials of a generation are trained together, as one batched model.

It follows from their configurations and numbers, and from what the journal says of earlier runs;
never from the number of workers, or from what ended first. A group that was begun and not all of
whose members are recorded is trained again whole, as a part of it would round otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import optuna

from tuner.batching import DECIDING, groups_of, why_single
from tuner.coordination.history import StudyTrial
from tuner.errors import ExperimentError
from tuner.executors.base import Executor
from tuner.experiment import Experiment
from tuner.experiment.data import PREPARED
from tuner.jobs import TrainJob
from tuner.journal.storage import GPU_ATTR, GROUP_ATTR, group_commit


@dataclass(frozen=True)
class Grouping:
    """How the trials of a study are grouped; the same in all of its runs."""

    gpu: bool  # whether trials train on GPUs, on which all sizes of models are trained together
    always: bool  # whether whatever can is trained together, also where it does not pay

    def of(
        self, trials: Sequence[StudyTrial], make_job: Callable[[optuna.Trial], TrainJob]
    ) -> list[list[StudyTrial]]:
        """Return the trials of one generation in groups, and write down new ones.

        What has been decided stays, so trials that a larger budget has added to a generation are
        grouped by themselves.

        Args:
            trials: all that are trained and have not been told, in order; some may be recorded.
            make_job: makes the job of a trial.

        Returns:
            The groups, with one trial or more each, in which some trial is not recorded.
        """
        # A decision is written from the last trial to the first: one without it ends what is
        # decided, and what later trials have is left of a decision that a kill has cut off. What
        # is recorded without one was trained when the study formed no groups.
        decided = list(itertools.takewhile(lambda t: t.group or t.outcome is not None, trials))
        of_number: dict[tuple[int, ...], list[StudyTrial]] = {}
        for trial in decided:
            of_number.setdefault(trial.group or (trial.number,), []).append(trial)
        new = [trial for trial in trials[len(decided) :] if trial.outcome is None]
        groups = [*of_number.values(), *self._group(new, make_job)]
        return [group for group in groups if any(trial.outcome is None for trial in group)]

    def _group(
        self, trials: Sequence[StudyTrial], make_job: Callable[[optuna.Trial], TrainJob]
    ) -> list[list[StudyTrial]]:
        jobs = [make_job(trial.handle) for trial in trials]
        of_key = {job.key: trial for job, trial in zip(jobs, trials, strict=True)}
        found = groups_of(jobs, gpu=self.gpu, always=self.always)
        groups = [[of_key[job.key] for job in group] for group in found]
        write_groups(groups)
        return groups


def write_groups(groups: Iterable[Sequence[StudyTrial]]) -> None:
    """Write down which trials of one generation are trained together, or each by itself.

    They are written from the last trial to the first; a file has all of them in one write.
    """
    numbers = {trial: tuple(each.number for each in group) for group in groups for trial in group}
    if not numbers:
        return
    last_first = sorted(numbers, key=lambda trial: -trial.number)
    with group_commit(last_first[0].handle.storage):
        for trial in last_first:
            if trial.group != numbers[trial]:
                trial.group = numbers[trial]
                trial.handle.set_user_attr(GROUP_ATTR, list(trial.group))


def grouping_of(experiment: Experiment, study: optuna.Study, executor: Executor) -> Grouping | None:
    """Return how the trials of a study are grouped; None if each is trained by itself.

    Whether trials train on GPUs is decided in the first run, and recorded: a search that goes on
    elsewhere has the same groups. So has one that goes on with `budget.trial_timeout`, as far as
    they are recorded; its other trials are single then. An executor of an installed package that
    does not say whether it has GPUs knows no groups.

    Raises:
        ExperimentError: `training.execution` is batched, and the executor knows no groups.
    """
    training = experiment.training
    gpu = study.user_attrs.get(GPU_ATTR)
    if training.execution == "single" or (gpu is None and experiment.why_single is not None):
        return None
    has_gpus: bool | None = getattr(executor, "has_gpus", None)
    if has_gpus is None:
        if training.execution == "auto":
            return None
        rule, remedy = "the executor trains no groups", "write auto, or choose another --executor"
        raise ExperimentError(rule, key="training.execution", got="batched", remedy=remedy)
    if gpu is None:
        gpu = training.device == "cuda" or (training.device == "auto" and has_gpus)
        study.set_user_attr(GPU_ATTR, gpu)
    return Grouping(gpu, always=training.execution == "batched")


def check_batched(
    experiment: Experiment, make_job: Callable[[dict[str, object]], TrainJob]
) -> None:
    """Refuse `training.execution: batched` where no configuration can be trained in a group.

    Args:
        experiment: with its search space.
        make_job: makes the job of a configuration, from the searched hyperparameters.

    Raises:
        ExperimentError: no combination of the ends of ranges, or of choices, of what decides can
            be; the first one says why.
    """
    if experiment.training.execution != "batched":
        return
    why: str | None = None
    for params in _configurations(experiment):
        own = why_single(make_job(params))
        if own is None:
            return
        why = why or own
    rule = f"no trial can be trained in a group: {why}"
    remedy = "write auto, which trains such trials one by one"
    raise ExperimentError(rule, key="training.execution", got="batched", remedy=remedy)


def _configurations(experiment: Experiment) -> Iterable[dict[str, object]]:
    """Yield the start with every combination of what decides whether a trial can be in a group."""
    start = experiment.start()
    base = {n: start.get(n, domain.bounds()[0]) for n, domain in experiment.search_space.items()}
    options = {
        name: dict.fromkeys([base[name], *domain.bounds()])
        for name, domain in experiment.search_space.items()
        if name in DECIDING or name in PREPARED
    }
    for combination in itertools.product(*options.values()):
        yield base | dict(zip(options, combination, strict=True))
