"""Training: the model, its samples and the loop, run by a worker on one job at a time, or a group.

Nothing here knows of a search; it maps jobs to outcomes.
"""

from tuner.training.batched import GroupReport, train_group
from tuner.training.model import Model, predict
from tuner.training.trainer import Report, run_job, train, warm_up

__all__ = [
    "GroupReport",
    "Model",
    "Report",
    "predict",
    "run_job",
    "train",
    "train_group",
    "warm_up",
]
