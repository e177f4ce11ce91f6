"""Looks at code of one's own before a search: what a class declares, and whether it works.

Run by `tuner.experiment.cells` in a process of its own, as the class brings torch along.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["look_at", "look_at_loss"]

_STEPS, _BATCH = 5, 2


def look_at(reference: str, sample: dict[str, Any], ours: list[str]) -> dict[str, Any]:
    """Return what a class declares, or the problem that it has.

    Args:
        reference: of the class.
        sample: kind, horizon, quantiles and number of targets; whether the steps are tokens, and
            whether columns are known ahead.
        ours: the names of tuner's own hyperparameters.
    """
    from tuner.training.errors import TrainingError
    from tuner.training.own_cell import is_whole, load_class

    try:
        found = load_class(reference)
        whole, declared = is_whole(found), getattr(found, "hyperparameters", {})
        keys = _keys(reference, declared, ours)
        takes = _takes(found, reference, keys, ours, whole)
        _try(reference, {n: k["default"] for n, k in keys.items()}, sample, whole)
    except TrainingError as error:
        return {"problem": str(error)}
    except Exception as error:  # of a forward pass
        return {"problem": f"{reference} cannot read: {type(error).__name__}: {error}"}
    return {"whole": whole, "takes": takes, "keys": keys}


def look_at_loss(loss: str, kind: str) -> dict[str, Any]:
    """Return the problem that a function has as a loss, or nothing.

    Args:
        loss: its reference.
        kind: of the task.
    """
    import torch

    from tuner.data import Shape
    from tuner.training.errors import TrainingError
    from tuner.training.own_loss import own_loss

    torch.manual_seed(0)
    classes = 3 if kind in ("classify", "label") else 0
    shape = Shape("classify" if classes else "forecast", 1, classes=classes)
    outputs = torch.randn((4, 3) if classes else (4, 2, 1), requires_grad=True)
    targets = torch.tensor([0, 1, 2, 1]) if classes else torch.randn(4, 2, 1)
    try:
        found = own_loss(loss, shape)(outputs, targets)
        if not found.requires_grad:
            raise TrainingError(f"loss: {loss} has no gradient; calculate with torch alone")
    except TrainingError as error:
        return {"problem": str(error).removeprefix("loss: ")}
    return {}


def _keys(reference: str, declared: Any, ours: list[str]) -> dict[str, dict[str, Any]]:
    """Return the keys that a class declares, each with a range and a default."""
    from tuner.training.errors import TrainingError

    example = "{'leak': {'type': 'float', 'low': 0.0, 'high': 0.9, 'default': 0.5}}"
    if not isinstance(declared, dict) or not all(
        isinstance(name, str) and isinstance(key, dict) for name, key in declared.items()
    ):
        text = f"`hyperparameters` of {reference} must map names to ranges, got {declared!r}"
        raise TrainingError(f"{text}; write {example}, say")
    for name, key in declared.items():
        if name in ours:
            text = f"{reference} declares {name!r}, which is tuner's own"
            raise TrainingError(f"{text}; call it otherwise")
        if "default" not in key:
            text = f"{reference} declares {name!r} without a default, got {key!r}"
            raise TrainingError(f"{text}; add 'default'")
    return json.loads(json.dumps(declared))  # type: ignore[no-any-return]


def _takes(
    found: type, reference: str, keys: dict[str, Any], ours: list[str], whole: bool
) -> list[str]:
    """Return which of tuner's hyperparameters a whole model takes, and check that all fits."""
    import inspect

    from tuner.training.errors import TrainingError

    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    first = {"shape"} if whole else {"inputs", "units"}
    taken = [name for name in parameters if name not in first]
    if lacking := [name for name in keys if name not in taken]:
        text = f"{reference} declares {lacking[0]!r}, and takes none"
        raise TrainingError(f"{text}; add it to the arguments of its __init__")
    known = [*keys, *(ours if whole else [])]
    for name in taken:
        if name not in known and parameters[name].default is inspect.Parameter.empty:
            text = f"{reference} takes {name!r}, and does not declare it"
            raise TrainingError(f"{text}; add it to its `hyperparameters`")
    return [name for name in taken if name in ours and whole]


def _try(reference: str, own: dict[str, Any], sample: dict[str, Any], whole: bool) -> None:
    """Have the class read random numbers.

    Raises:
        TrainingError: it puts out what does not fit.
    """
    import torch

    from tuner.data import Shape
    from tuner.experiment.hyperparameters import Hyperparameters
    from tuner.training.own_cell import OwnLayer, OwnModel

    torch.manual_seed(0)
    parameters = Hyperparameters(cell=reference, hidden_size=4, **own)
    if not whole:
        for both in (False, True):
            OwnLayer(parameters, 3, 4, bidirectional=both)(torch.randn(_BATCH, _STEPS, 3))
        return
    kind = sample.get("kind", "forecast")
    classes = 3 if kind in ("classify", "label") else 0
    features, vocabulary = (0, 9) if sample["tokens"] else (2 + sample["targets"], 0)
    shape = Shape(
        kind,
        features,
        vocabulary,
        horizon=sample.get("horizon", 1) if kind == "forecast" else 1,
        targets=sample["targets"],
        quantiles=tuple(sample.get("quantiles", ())),
        classes=classes,
        window=_STEPS,
        target_columns=tuple(range(sample["targets"])),
        known_columns=(features - 1,) if sample["known"] else (),
    )
    x = torch.randint(2, vocabulary, (_BATCH, _STEPS)) if vocabulary else None
    x = torch.randn(_BATCH, _STEPS, features) if x is None else x
    coming = torch.randn(_BATCH, shape.ahead, 1) if shape.ahead else None
    OwnModel(parameters, shape, features)(x, coming=coming)


def _main(argument: str) -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the class prints is no answer
    asked = json.loads(argument)
    json.dump(look_at_loss(**asked) if "loss" in asked else look_at(**asked), answer)
    answer.close()


if __name__ == "__main__":
    _main(sys.argv[1])
