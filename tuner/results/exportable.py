"""Whether a model can be exported, known before it is trained."""

from __future__ import annotations

from tuner.data.dataset import Facts
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import WIDTH
from tuner.jobs import LARGEST_ONNX

__all__ = ["why_not_exportable"]


def why_not_exportable(experiment: Experiment, facts: Facts) -> str | None:
    """Say why the experiment's largest model has no ONNX file; None where it has one.

    Every cell, pooling, decoder and task has one. But a file holds no more than 2 GB.
    """
    n_bytes = 4 * _weights(experiment, facts)
    if n_bytes <= LARGEST_ONNX:
        return None
    return (
        f"not possible for the largest model: its weights are {n_bytes / 1e9:.1f} GB, and an ONNX "
        f"file holds 2 GB; make {_largest_part(experiment, facts)} smaller to export it"
    )


def _weights(experiment: Experiment, facts: Facts) -> int:
    """Return how many weights the largest model of the search has, roughly."""
    ways = 1 + _most(experiment, "bidirectional")
    inputs = (
        _most(experiment, "embedding_size") if facts.vocabulary else _columns(experiment, facts)
    )
    found = facts.vocabulary * inputs
    if channels := _most(experiment, "conv_channels"):
        found += channels * inputs * _most(experiment, "conv_kernel")
        inputs = channels
    if (segment := _most(experiment, "segment")) > 1:
        found += segment * inputs * _widths(experiment)[0]
        inputs = _widths(experiment)[0]
    for width in _widths(experiment):
        found += 4 * ways * width * (inputs + width + 2)
        inputs = ways * width
    task = experiment.task
    if _most(experiment, "linear_path"):
        found += _most(experiment, "window") * task.horizon
    outputs = len(facts.classes) or task.horizon * len(facts.targets)
    return found + inputs * outputs * max(1, len(task.quantiles))


def _columns(experiment: Experiment, facts: Facts) -> int:
    """Return how many columns a model reads at most, whatever is made of the time and of lags."""
    found = len(facts.features)
    for name in ("calendar", "lags"):
        if domain := experiment.search_space.get(name):
            made = [_made(experiment.prepared_as({name: choice})) for choice in domain.bounds()]
            found += max(0, max(made) - _made(experiment))
    return found


def _made(experiment: Experiment) -> int:
    data = experiment.data
    return 2 * len(data.calendar) + sum(map(len, data.lags.values()))


def _widths(experiment: Experiment) -> list[int]:
    searched = [name for name in experiment.search_space if WIDTH.fullmatch(name)]
    if searched:
        return [_most(experiment, name) for name in searched]
    if "hidden_size" not in experiment.search_space and "num_layers" not in experiment.search_space:
        return experiment.hyperparameters.widths
    return [_most(experiment, "hidden_size")] * _most(experiment, "num_layers")


def _largest_part(experiment: Experiment, facts: Facts) -> str:
    """Return the key on which most of the weights depend."""
    embedding = facts.vocabulary * _most(experiment, "embedding_size")
    return "embedding_size" if 2 * embedding > _weights(experiment, facts) else "hidden_size"


def _most(experiment: Experiment, name: str) -> int:
    """Return the largest value that a hyperparameter may have."""
    if domain := experiment.search_space.get(name):
        return int(max(domain.bounds()))
    value = experiment.given(name)
    return int(max(value) if isinstance(value, list) else value)
