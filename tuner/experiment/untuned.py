"""The model that one gets without a search: the yardstick of what the search was worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.experiment.hyperparameters import WIDTH, Hyperparameters
from tuner.experiment.preparations import PREPARED
from tuner.experiment.rules import check_rules
from tuner.experiment.schema import Experiment

__all__ = ["canonical", "model_name", "untuned"]

_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "peephole": "peephole LSTM"}


def model_name(cell: str) -> str:
    """Return what people call a model, by its cell: of one's own, the name of the class."""
    return _NAMES.get(cell) or cell.rpartition(":")[2]


def untuned(experiment: Experiment) -> dict[str, Any]:
    """Return what the searched hyperparameters are without a search: the library's defaults.

    A searched preparation of the data is what `data` says.

    Where the fixed ones do not go together with these, those that lie outside the search space
    are moved into it. The window is never longer than the longest that is searched, so that the
    model is scored on the same rows as every trial.
    """
    space = experiment.search_space
    values: dict[str, Any] = {}
    for name in space:
        if WIDTH.fullmatch(name):
            values |= {n: experiment.default_of(n) for n in ("hidden_size", "num_layers")}
        elif name == "window":
            values[name] = min(experiment.task.window, max(space[name].bounds()))
        elif name in PREPARED:
            values[name] = experiment.given(name)
        else:
            values[name] = experiment.default_of(name)
    if not _is_allowed(experiment, values):
        outside = {n: domain for n, domain in space.items() if values.get(n) not in domain}
        values |= {name: domain.bounds()[0] for name, domain in outside.items()}
        if any(WIDTH.fullmatch(name) for name in outside):
            del values["hidden_size"], values["num_layers"]  # each layer has its own now
    return values


def canonical(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole configuration in one form: equal ones are equal, however they are written.

    Args:
        experiment: says what is fixed.
        params: the searched hyperparameters.
    """
    window = {"window": experiment.task.window} if experiment.task.of_series else {}
    whole = window | experiment.configuration(dict(params))
    if not isinstance(whole["hidden_size"], list):
        whole["hidden_size"] = [whole["hidden_size"]] * whole["num_layers"]
    return whole | experiment.preparation(params)


def _is_allowed(experiment: Experiment, values: Mapping[str, Any]) -> bool:
    """Whether the trainer takes `values` with what the experiment fixes."""
    configuration = experiment.configuration(dict(values))
    changed = {"search_space": {}, "hyperparameters": Hyperparameters(**configuration)}
    try:
        check_rules(experiment.prepared_as(values).model_copy(update=changed))
    except ValueError:
        return False
    return True
