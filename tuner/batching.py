"""Which trainings are done together, as one batched model (`tuner.training.batched`).

All that is decided here follows from the jobs and their order, so that a search forms the same
groups on any number of workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tuner.data import SeriesRef
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import TrainJob, cost
from tuner.user_code import is_user_code

MOST_MEMBERS = 10
"""Members of a group on a CPU, so that several workers have a part of a generation."""
FEWEST_MEMBERS = 3
"""Members of a group on a CPU; two are no faster together than one after the other."""
MOST_MEMBERS_GPU = 128
WIDEST = 32
"""Units of the widest layer up to which a group pays on a CPU (benchmarks/batched.py)."""

DECIDING = (
    "cell", "bidirectional", "bias", "proj_size", "pooling", "decoder", "conv_channels",
    "optimizer", "loss",
)  # fmt: skip
"""The hyperparameters that decide whether a job can be trained in a group."""


def why_single(job: TrainJob) -> str | None:
    """Return why a job cannot be trained in a group, in words; None where it can.

    The words continue "it trains singly, as ...".
    """
    data = job.folds[0]
    if not isinstance(data, SeriesRef) or data.shape.task != "forecast":
        return "only forecasts are batched"
    parameters = Hyperparameters(**job.hyperparameters)
    return _of_job(job) or _of_data(data) or _of_model(parameters)


def _of_job(job: TrainJob) -> str | None:
    rules = {
        "it is trained on several folds": len(job.folds) > 1,
        "it has no validation": not job.validates,
        "budget.trial_timeout is a limit of one training": job.timeout_s is not None,
        "mixed precision is not batched": job.mixed_precision and job.device != "cpu",
    }
    return next((rule for rule, broken in rules.items() if broken), None)


def _of_model(parameters: Hyperparameters) -> str | None:
    rules = {
        f"the cell {parameters.cell} is not batched": parameters.cell != "lstm",
        "bidirectional layers are not batched": parameters.bidirectional,
        "layers without bias are not batched": not parameters.bias,
        "projections (proj_size) are not batched": parameters.proj_size > 0,
        f"the pooling {parameters.pooling} is not batched": parameters.pooling
        not in ("last", "mean"),
        f"the decoder {parameters.decoder} is not batched": parameters.decoder != "direct",
        "convolutions are not batched": parameters.conv_channels > 0,
        f"the optimizer {parameters.optimizer} is not batched": parameters.optimizer
        not in ("adam", "adamw"),
        "a loss from user code is not batched": is_user_code(parameters.loss),
    }
    return next((rule for rule, broken in rules.items() if broken), None)


def _of_data(data: SeriesRef) -> str | None:
    if data.shape.categories:
        return "embeddings of categories are not batched"
    if data.shape.known_columns:
        return "columns that are known ahead are not batched"
    return None


def groups_of(
    jobs: Sequence[TrainJob], *, gpu: bool, always: bool = False
) -> list[tuple[TrainJob, ...]]:
    """Return which jobs of one generation train together; a group of one trains singly.

    Members of a group read the same data, take batches of the same size, and have the same layers
    and loss; width, dropout, rates, normalization and the rest are each member's own. The jobs of
    a kind are sorted by their cost, so that padding to the widest member wastes little, and dealt
    to as few groups as may be, of sizes that differ by one at most.

    Args:
        jobs: in the order of trial numbers.
        gpu: whether they train on a GPU, where all that fits is grouped.
        always: whether the groups are formed on a CPU too where they do not pay.

    Returns:
        Groups by their first job's place among `jobs`; the members of each in that order.
    """
    kinds: dict[Any, list[int]] = {}
    for at, job in enumerate(jobs):
        kinds.setdefault(_kind(job, at, gpu or always), []).append(at)
    most = MOST_MEMBERS_GPU if gpu else MOST_MEMBERS
    groups: list[list[int]] = []
    for places in kinds.values():
        if len(places) < FEWEST_MEMBERS and not (gpu or always):
            groups += [[at] for at in places]
            continue
        n_groups = -(-len(places) // most)
        by_cost = sorted(places, key=lambda at: (cost(jobs[at]), at))
        bounds = [len(places) * k // n_groups for k in range(n_groups + 1)]
        groups += [sorted(by_cost[a:b]) for a, b in itertools.pairwise(bounds)]
    return [tuple(jobs[at] for at in group) for group in sorted(groups)]


def _kind(job: TrainJob, at: int, whatever_fits: bool) -> Any:
    """Return a key that jobs share if they can train together; of a single job its place."""
    if why_single(job) is not None:
        return at
    parameters = Hyperparameters(**job.hyperparameters)
    if not whatever_fits and max(parameters.widths) > WIDEST:
        return at
    data = job.folds[0].with_window(parameters.window)
    return (
        repr(data),
        job.metric,
        job.device,
        parameters.batch_size,
        len(parameters.widths),
        parameters.segment,
        parameters.pooling,
        parameters.loss,
    )
