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

MOST_MEMBERS = 5
"""Members of a group on a CPU, so that a generation of ten keeps two workers busy."""
FEWEST_MEMBERS = 3
"""Members of a group on a CPU; two are no faster together than one after the other."""
MOST_MEMBERS_GPU = 128
MOST_BYTES = 256 * 2**20
"""Of a group by `bytes_of`, on a CPU: as much as a worker takes before it trains."""
MOST_BYTES_GPU = 4 * 2**30
_OF_UNIT = 20  # numbers of a unit of a layer, in each step of a window, until its gradient
_COPIES = 4  # of inputs
_OF_WEIGHT = 14  # itself, gradient, two moments, average and the copies of a step; also alone
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
    to as few groups as may be, of sizes that differ by one at most. There are as many as it takes
    for each to have no more members than `MOST_MEMBERS` and bytes than `MOST_BYTES` (on a GPU
    `MOST_MEMBERS_GPU` and `MOST_BYTES_GPU`); a job that is larger alone trains singly.

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
    fewest = 2 if gpu or always else FEWEST_MEMBERS
    groups: list[list[int]] = []
    for places in kinds.values():
        by_cost = sorted(places, key=lambda at: (cost(jobs[at]), at))
        for group in _dealt(by_cost, jobs, gpu=gpu):
            groups += [sorted(group)] if len(group) >= fewest else [[at] for at in group]
    return [tuple(jobs[at] for at in group) for group in sorted(groups)]


def _dealt(places: Sequence[int], jobs: Sequence[TrainJob], *, gpu: bool) -> list[Sequence[int]]:
    """Return runs of places of one kind that are small enough, of even lengths."""
    most = MOST_MEMBERS_GPU if gpu else MOST_MEMBERS
    most_bytes = MOST_BYTES_GPU if gpu else MOST_BYTES
    alone: list[Sequence[int]] = []  # with its neighbour, the largest is too large already
    while len(places) > 1 and bytes_of([jobs[at] for at in places[-2:]]) > most_bytes:
        alone.append(places[-1:])
        places = places[:-1]
    n_groups = -(-len(places) // most)
    while True:
        bounds = [len(places) * k // n_groups for k in range(n_groups + 1)]
        groups = [places[a:b] for a, b in itertools.pairwise(bounds)]
        large = [g for g in groups if len(g) > 1 and bytes_of([jobs[at] for at in g]) > most_bytes]
        if not large:
            return groups + alone
        n_groups += 1


def bytes_of(jobs: Sequence[TrainJob]) -> int:
    """Estimate the memory that members of a group take, in bytes.

    It follows from the jobs, so that it is the same on every machine. Of every member these count,
    as wide as the widest: what a batch leaves in each layer for its gradient (of every unit and
    step four gates with their slopes, states, inputs, and the copies that the gradient takes), the
    windows of the batch, and weights with moments and copies. What members share does not: the
    data, and windows that are kept (`tuner.training.group_windows`), of which there is a limit.
    """
    first = Hyperparameters(**jobs[0].hyperparameters)
    data = jobs[0].folds[0].with_window(first.window)
    assert isinstance(data, SeriesRef), "only forecasts are batched"
    shape, segment = data.shape, first.segment
    every = [Hyperparameters(**job.hyperparameters).widths for job in jobs]
    widths = [max(of_layer) for of_layer in zip(*every, strict=True)]
    read = shape.inputs + (shape.targets if shape.trend else 0)
    steps, inputs = -(-data.window // segment), read
    weights = kept = 0
    if segment > 1:
        weights, kept, inputs = widths[0] * (segment * read + 1), _COPIES * widths[0], widths[0]
    for width in widths:
        weights += 4 * width * (width + inputs + 2)
        kept += _OF_UNIT * width + _COPIES * inputs
        inputs = width
    outputs = shape.horizon * shape.targets * max(1, len(shape.quantiles))
    weights += (inputs + 1) * outputs
    windows = _COPIES * (steps * segment * read + outputs)
    numbers = _OF_WEIGHT * weights + first.batch_size * (steps * kept + windows)
    return 4 * len(jobs) * numbers


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
