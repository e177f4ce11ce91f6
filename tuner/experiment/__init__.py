"""The experiment file: what is searched, on which data, with which budget."""

from tuner.experiment.data import Split
from tuner.experiment.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.schema import Recorded, Resources
from tuner.experiment.space import (
    CategoricalDomain,
    Domain,
    FloatDomain,
    IntDomain,
    SearchSpace,
    space_size,
)
from tuner.experiment.yaml_files import Override, dump_yaml, flat, parse_value

__all__ = [
    "CategoricalDomain",
    "Domain",
    "Experiment",
    "FloatDomain",
    "Hyperparameters",
    "IntDomain",
    "Override",
    "Recorded",
    "Resources",
    "SearchSpace",
    "Split",
    "dump_yaml",
    "flat",
    "parse_value",
    "space_size",
]
