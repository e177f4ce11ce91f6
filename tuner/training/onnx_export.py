"""Exports a trained model as ONNX, and checks that it predicts the same."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from torch import Tensor, nn

from tuner.errors import one_line
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import LARGEST_ONNX, Exported, ExportJob, Outcome, OutcomeState
from tuner.training.decoders import Decoder, InSegments, Recursive, Translator
from tuner.training.device import TrainingError, peak_memory_mb, seeded
from tuner.training.layers import Attention, Last, Max, Mean, middle_at, real_steps
from tuner.training.linear_path import SequencePath
from tuner.training.model import Ensemble, Model
from tuner.training.onnx_operators import (
    Graph,
    add_beside,
    add_categories,
    add_convolution,
    add_decomposition,
    add_layers,
    add_linear,
    add_linear_path,
    add_local_head,
    add_normalization,
    add_parts,
    add_segments,
    add_values,
    axes,
    put_back,
    zero_padding,
)
from tuner.training.user_models import OwnLayer, OwnModel

__all__ = ["export", "has_own_code", "to_onnx", "trace"]


def to_onnx(model: Model | Ensemble) -> onnx.ModelProto:
    """Return what `model` computes without dropout, for batches and sequences of any length.

    With a linear path over whole sequences they have the one length that the graph's input says.

    Inputs: `inputs`, (batch, steps, features), the last ones being rows to come where columns are
    known there, or `tokens`, (batch, steps), int64; and but for
    windows `lengths`, (batch,), int64, how many steps of each are real. The output, `outputs`,
    is that of `Model.forward`; of an ensemble, whose models read the same inputs, their mean.
    """
    g, shape = Graph(), model.shape
    inputs: dict[str, tuple[int, list[str | int]]] = {}
    if shape.vocabulary:
        inputs["tokens"] = (TensorProto.INT64, ["batch", "steps"])
    else:
        fixed = isinstance(model.linear_path, SequencePath)
        steps = shape.window if fixed else "steps"
        inputs["inputs"] = (TensorProto.FLOAT, ["batch", steps, shape.inputs])
    if not shape.of_series:
        inputs["lengths"] = (TensorProto.INT64, ["batch"])
    if shape.task == "translate":
        inputs["prefix"] = (TensorProto.INT64, ["batch", "said"])
    models = list(model.models) if isinstance(model, Ensemble) else [model]
    said = [_add(g, each) for each in models if isinstance(each, Model)]
    y = _mean(g, [y for y, _ in said], bool(shape.classes))
    return g.to_model(inputs, {"outputs": (y, said[0][1])})


def _mean(g: Graph, outputs: list[str], classes: bool) -> str:
    """Add `tuner.training.model.mean_outputs`."""
    if len(outputs) == 1:
        return outputs[0]
    if not classes:
        return g.op("Mean", *outputs)
    logs = [g.op("LogSoftmax", y, axis=-1) for y in outputs]
    largest = g.op("Max", *logs)  # that the mean of what is left has a logarithm
    shares = [g.op("Exp", g.op("Sub", log, largest)) for log in logs]
    return g.op("Add", largest, g.op("Log", g.op("Mean", *shares)))


def _add(g: Graph, model: Model) -> tuple[str, list[str | int]]:
    """Add a model; return what it puts out, and its shape."""
    shape = model.shape
    embedded = known = ""
    if model.categories is not None:
        embedded, known = add_categories(g, model.categories, "inputs")
    x, coming = add_parts(g, "inputs", shape)
    ahead = add_beside(g, coming, known)
    if model.embedding is not None:
        x = g.op("Gather", model.embedding.weight, "tokens")
    lengths = real = ""
    if not shape.of_series:
        lengths, real = "lengths", _real_steps(g, x, "lengths")
    if model.normalization is not None:
        x, level = add_normalization(g, model.normalization, x)
    window = x
    if model.decomposition is not None:
        x = add_decomposition(g, model.decomposition, x)
    x = add_beside(g, x, embedded)
    if model.convolution is not None:
        x = add_convolution(g, model.convolution, zero_padding(g, x, real))
    if model.segments is not None:
        x, lengths = add_segments(g, model.segments, zero_padding(g, x, real), lengths)
        real = _real_steps(g, x, lengths) if lengths else ""
    counts = g.op("Cast", lengths, to=TensorProto.INT32) if lengths else ""
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (steps, batch, features)
    for stack in model.recurrent.stacks:
        x, states = add_layers(g, stack, x, counts)
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (batch, steps, width)

    if model.pooling is None:
        return add_linear(g, model.head, x), ["batch", "steps", shape.classes or shape.targets]
    pooled = _pool(g, model.pooling, x, states[0], real, lengths)
    if isinstance(model.head, Translator):
        return _say(g, model.head, [pooled, *states[1:]]), ["batch", "said", shape.classes]
    y, out = _head(g, model, [pooled, *states[1:]], ahead)
    if model.linear_path is not None:
        linear = add_linear_path(g, model.linear_path, window, coming)
        y = g.op("Add", y, g.op("Unsqueeze", linear, axes(3)) if shape.quantiles else linear)
    if model.normalization is not None:
        y = put_back(g, y, level, shape)
    return y, out


def _real_steps(g: Graph, x: str, lengths: str) -> str:
    """Add which of so many steps of (batch, steps, ...) are real, (batch, steps, 1)."""
    n_steps = g.op("Gather", g.op("Shape", x), np.array(1))
    step = g.op("Range", np.array(0), n_steps, np.array(1))  # (steps,)
    real = g.op("Less", step, g.op("Unsqueeze", lengths, axes(1)))
    return g.op("Unsqueeze", real, axes(2))


def _pool(g: Graph, pooling: nn.Module, outputs: str, last: str, real: str, lengths: str) -> str:
    """Add what a pooling makes of (batch, steps, width): (batch, width)."""
    if isinstance(pooling, Last):
        return last
    if isinstance(pooling, Max):
        return g.op("ReduceMax", _or(g, real, outputs, -np.inf), axes=[1], keepdims=0)
    outputs = _or(g, real, outputs, 0.0)  # ONNX leaves it open what is put out where a step pads
    if isinstance(pooling, Mean):
        if not real:
            return g.op("ReduceMean", outputs, axes=[1], keepdims=0)
        total = g.op("ReduceSum", outputs, axes(1), keepdims=0)
        count = g.op("Unsqueeze", g.op("Cast", lengths, to=TensorProto.FLOAT), axes(1))
        return g.op("Div", total, count)
    assert isinstance(pooling, Attention)
    query = g.op("Unsqueeze", add_linear(g, pooling.query, last), axes(1))
    hidden = g.op("Tanh", g.op("Add", query, add_linear(g, pooling.key, outputs)))
    energies = _or(g, real, add_linear(g, pooling.energy, hidden), -np.inf)  # (batch, steps, 1)
    weights = g.op("Transpose", g.op("Softmax", energies, axis=1), perm=[0, 2, 1])
    return g.op("Squeeze", g.op("MatMul", weights, outputs), axes(1))


def _or(g: Graph, real: str, x: str, otherwise: float) -> str:
    """Add what puts a number in place of steps that are not real."""
    return g.op("Where", real, x, np.array(otherwise, np.float32)) if real else x


def _head(g: Graph, model: Model, states: list[str], coming: str) -> tuple[str, list[str | int]]:
    """Add the head of a vector that was pooled; return what it puts out, and its shape."""
    head, shape = model.head, model.shape
    quantiles = [len(shape.quantiles)] if shape.quantiles else []
    out: list[str | int] = ["batch", shape.horizon, shape.targets, *quantiles]
    if isinstance(head, Decoder):
        states = [
            s if isinstance(bridge, nn.Identity) else add_linear(g, bridge, s)
            for bridge, s in zip(head.bridges, states, strict=True)
        ]
        if isinstance(head, InSegments):
            return _decode_pieces(g, head, states, coming), out
        assert isinstance(head, Recursive)
        return _decode_steps(g, head, states, coming), out
    numbers = add_linear(g, head, states[0])
    if model.local is not None:
        numbers = g.op("Add", numbers, add_local_head(g, model.local, states[0], coming))
    if shape.classes:
        return numbers, ["batch", shape.classes]
    return add_values(g, numbers, shape), out


def _say(g: Graph, head: Translator, states: list[str]) -> str:
    """Add what comes after each token that was said, (batch, said, tokens)."""
    states = [
        s if isinstance(bridge, nn.Identity) else add_linear(g, bridge, s)
        for bridge, s in zip(head.bridges, states, strict=True)
    ]
    x = g.op("Transpose", g.op("Gather", head.embedding.weight, "prefix"), perm=[1, 0, 2])
    x, _ = add_layers(g, head.layer, x, "", states)
    return add_linear(g, head.head, g.op("Transpose", x, perm=[1, 0, 2]))


def _decode_pieces(g: Graph, head: InSegments, states: list[str], coming: str) -> str:
    """Add one step of all pieces at once; return (batch, horizon, targets[, quantiles])."""
    pieces, units = head.begin.shape
    each = g.op("Unsqueeze", head.begin, axes(0))  # (1, pieces, units)
    batch = g.op("Slice", g.op("Shape", states[0]), axes(0), axes(1))  # (1,)
    x = g.op("Expand", each, g.op("Concat", batch, axes(pieces, units), axis=0))
    if head.known is not None:
        behind = pieces * head.steps - head.shape.horizon
        rows = g.op("Pad", coming, axes(0, 0, 0, 0, behind, 0), np.array(0, np.float32))
        rows = g.op("Reshape", rows, axes(0, pieces, head.known.in_features))
        x = g.op("Add", x, add_linear(g, head.known, rows))
    x = g.op("Reshape", x, axes(1, -1, units))  # (1, batch * pieces, units)
    repeated = []
    for state, size in zip(states, head.sizes, strict=True):
        to = g.op("Concat", batch, axes(pieces, size), axis=0)
        state = g.op("Expand", g.op("Unsqueeze", state, axes(1)), to)
        repeated.append(g.op("Reshape", state, axes(-1, size)))
    _, states = add_layers(g, head.layer, x, "", repeated)
    numbers = add_linear(g, head.head, states[0])  # (batch * pieces, steps * numbers)
    numbers = g.op("Reshape", numbers, axes(-1, pieces * head.head.out_features))
    values = add_values(g, numbers, head.shape)
    return g.op("Slice", values, axes(0), axes(head.shape.horizon), axes(1))


def _decode_steps(g: Graph, head: Recursive, states: list[str], coming: str) -> str:
    """Add a loop over the horizon; return (batch, horizon, targets[, quantiles])."""
    shape = head.shape
    batch = g.op("Slice", g.op("Shape", states[0]), axes(0), axes(1))  # (1,)
    size = g.op("Concat", batch, axes(shape.targets), axis=0)
    begin = g.op("Expand", head.begin, size)  # (batch, targets)

    def step(g: Graph, before: list[str]) -> tuple[list[str], str]:
        x, *states = before
        if coming:
            x = g.op("Concat", x, g.op("Gather", coming, g.time, axis=1), axis=1)
        _, states = add_layers(g, head.layer, g.op("Unsqueeze", x, axes(0)), "", states)
        values = add_values(g, add_linear(g, head.head, states[0]), shape)
        values = g.op("Squeeze", values, axes(1))  # (batch, targets[, quantiles])
        x = values
        if shape.quantiles:
            x = g.op("Gather", values, np.array(middle_at(shape)), axis=2)
        return [x, *states], values

    values = g.loop(shape.horizon, [begin, *states], step)  # (horizon, batch, targets[, quantiles])
    return g.op("Transpose", values, perm=[1, 0, 2, 3] if shape.quantiles else [1, 0, 2])


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


_TOLERANCE = 1e-5  # of the largest output

_ROUNDING = 10  # times torch's own rounding errors, where a model makes more of them than that

_BATCHES = ((1, 1.0), (7, 0.5), (64, 1.0))  # sizes, and the part of the job's steps that each has


def export(job: ExportJob) -> Outcome:
    """Return the model as ONNX, and how far it is from torch's on random inputs.

    Raises:
        TrainingError: it is too large for a file, or puts out something else.
    """
    started = time.perf_counter()
    with seeded(0, torch.device("cpu")):
        models = []
        for weights in (job.weights, *job.others):
            models.append(Model(Hyperparameters(**job.hyperparameters), job.shape))
            models[-1].load_weights(weights)
        model = models[0] if len(models) == 1 else Ensemble(models)
        model.eval()
        if has_own_code(model):
            file, difference = _traced(model, job.steps)
        else:
            file = _serialized(to_onnx(model))
            steps = model.shape.window if model.linear_path is not None else None
            difference = _difference(model, file, job.steps, fixed=steps)
    return Outcome(
        OutcomeState.COMPLETE,
        seconds=time.perf_counter() - started,
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        exported=Exported(file, difference),
    )


def _traced(model: Model | Ensemble, steps: int) -> tuple[bytes, float]:
    """Return a graph with code of one's own, of any number of steps if it is right for them.

    Raises:
        TrainingError: there is none that is right.
    """
    shape, problem = model.shape, TrainingError("nothing was tried")
    tried = [shape.window] if shape.of_series else [None, *[shape.window][: shape.window]]
    for fixed in tried:
        x, lengths = _random_inputs(model, 2, fixed or steps, fixed=fixed is not None)
        file = trace(model, x, lengths, fixed=fixed is not None)
        try:
            return file, _difference(model, file, steps, fixed=fixed)
        except TrainingError as found:
            problem = found
    raise problem


def _serialized(model: onnx.ModelProto) -> bytes:
    n_bytes = sum(len(constant.raw_data) for constant in model.graph.initializer)
    if n_bytes > LARGEST_ONNX:
        raise TrainingError(
            f"its weights are {n_bytes / 1e9:.1f} GB, and an ONNX file holds 2 GB; make "
            f"hidden_size or embedding_size smaller to export it"
        )
    return bytes(model.SerializeToString())


def _difference(model: Model | Ensemble, file: bytes, steps: int, *, fixed: int | None) -> float:
    """Return the largest difference between ONNX and torch, over the largest output.

    Args:
        model: torch's.
        file: the graph.
        steps: that sequences have at most.
        fixed: how many steps the graph reads, where it takes no other number.

    Raises:
        TrainingError: it does not run, or puts out something else.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    exact = copy.deepcopy(model).double()
    worst = 0.0
    for size, part in _BATCHES:
        n_steps = max(1, round(part * steps)) if fixed is None else fixed
        x, lengths = _random_inputs(model, size, n_steps, fixed=fixed is not None)
        prefix = None
        if model.shape.task == "translate":
            prefix = torch.randint(0, model.shape.classes, (size, 1 + n_steps // 2))
        try:
            (found,) = session.run(None, _feed(x, lengths, prefix))
        except Exception as error:  # of classes that onnxruntime does not name
            told = one_line(error)[:200]
            raise TrainingError(f"its graph does not read {n_steps} steps: {told}") from None
        with torch.inference_mode():
            expected = model(x, lengths, prefix)
            true = exact(x.double() if x.is_floating_point() else x, lengths, prefix)
        if found.shape != tuple(expected.shape):
            text = f"it puts out {found.shape}, torch {tuple(expected.shape)}"
            if len(found) != size and has_own_code(model):
                text += ": the size of the batch became a constant, write x.shape[0] for len(x)"
            raise TrainingError(text)
        outputs = [torch.from_numpy(found).double(), expected.double(), true]
        if model.shape.each_step:
            assert lengths is not None
            real = real_steps(lengths, x.shape[1], x.device)
            outputs = [output[real] for output in outputs]
        of_onnx, of_torch, true = outputs
        largest = float(of_torch.abs().max()) or 1.0
        difference = float((of_onnx - of_torch).abs().max()) / largest
        # A recurrence may blow rounding errors up. Then both are compared to what is exact.
        off, rounding = ((o - true).abs().max() / largest for o in (of_onnx, of_torch))
        if not (difference <= _TOLERANCE or off <= _ROUNDING * rounding):
            raise TrainingError(
                f"it differs from torch by {difference:.1e} of the largest output, more than "
                f"{_TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst


def _random_inputs(
    model: Model | Ensemble, size: int, steps: int, *, fixed: bool
) -> tuple[Tensor, Tensor | None]:
    """Draw a batch from torch's generator: as many sequences, the first with as many steps.

    With fixed ones all have as many. Where columns are known ahead the rows to come are behind.
    """
    shape = model.shape
    lengths = None
    if not shape.of_series:
        lengths = torch.randint(steps if fixed else 1, steps + 1, (size,))
        lengths[0] = steps
    if shape.vocabulary:
        return torch.randint(0, shape.vocabulary, (size, steps)), lengths
    x = torch.randn(size, steps + shape.ahead, shape.inputs)
    for column, n in shape.categories:
        x[:, :, column] = torch.randint(0, n, x.shape[:2])
    return x, lengths


def _feed(x: Tensor, lengths: Tensor | None, prefix: Tensor | None = None) -> dict[str, np.ndarray]:
    """Return a batch by the names of the inputs of `to_onnx`."""
    feed = {"inputs" if x.is_floating_point() else "tokens": x.numpy()}
    feed |= {} if prefix is None else {"prefix": prefix.numpy()}
    return feed if lengths is None else feed | {"lengths": lengths.numpy()}
