"""A model with code of one's own as a graph of ONNX, by torch's own exporter."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from tuner.errors import one_line
from tuner.training.ensemble import Ensemble
from tuner.training.errors import TrainingError
from tuner.training.model import Model
from tuner.training.own_cell import OwnLayer, OwnModel

__all__ = ["has_own_code", "trace"]

_OPSET = 17


def has_own_code(model: Model | Ensemble) -> bool:
    """Return whether a part of a model is of a class that is not tuner's."""
    return any(isinstance(module, OwnLayer | OwnModel) for module in model.modules())


def trace(model: Model | Ensemble, x: Tensor, lengths: Tensor | None, *, fixed: bool) -> bytes:
    """Return what a model computes of some input, as a graph like those of `to_onnx`.

    Torch follows the operations of one pass: a loop over the steps is laid out as often as it ran.

    Args:
        model: without dropout.
        x: (batch, steps, inputs), or tokens, (batch, steps).
        lengths: (batch,), how many steps of each are real; None for forecasts.
        fixed: whether the graph reads as many steps as `x` has, and no other number.

    Raises:
        TrainingError: torch has no graph of it.
    """
    name = "inputs" if x.is_floating_point() else "tokens"
    axes = {name: {0: "batch"}, "outputs": {0: "batch"}}
    if not fixed:
        axes[name][1] = "steps"
    if model.shape.each_step:
        axes["outputs"][1] = "steps"
    names, arguments = [name], [x]
    if lengths is not None:
        names, arguments = [name, "lengths"], [x, lengths]
        axes["lengths"] = {0: "batch"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        _export(model, tuple(arguments), file, names, axes)
        graph = onnx.load(file)
    if "lengths" in names and all(each.name != "lengths" for each in graph.graph.input):
        # A model that does not read them has them all the same, as every other one has.
        read = onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"])
        graph.graph.input.append(read)
    return bytes(graph.SerializeToString())


def _export(
    model: Model | Ensemble,
    arguments: tuple[Tensor, ...],
    file: Path,
    names: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    try:
        with warnings.catch_warnings():  # of what the graph is checked for afterwards
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                arguments,
                str(file),
                input_names=names,
                output_names=["outputs"],
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except Exception as error:  # of many classes
        told = one_line(str(error).partition("\n")[0]).partition(". Please")[0]
        raise TrainingError(f"torch has no ONNX of {_what(model)}: {told}") from None


def _what(model: nn.Module) -> str:
    own = next(m for m in model.modules() if isinstance(m, OwnLayer | OwnModel))
    return own.what
