"""Export of a trained model as ONNX, with a check of its predictions."""

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
from tuner.training import onnx_operators as ops
from tuner.training.device import TrainingError, peak_memory_mb, seeded
from tuner.training.layers import Attention, Last, Max, Mean, middle_at, real_steps
from tuner.training.linear_path import SequencePath
from tuner.training.model import Ensemble, Model
from tuner.training.onnx_operators import OPSET, Graph, axes
from tuner.training.recurrent import Decoder, InSegments, Recursive, Translator
from tuner.training.user_models import UserLayer, UserModel

_TOLERANCE = 1e-5  # of the largest output
_ROUNDING = 10  # times torch's own rounding errors, where these are larger than the tolerance
_BATCHES = ((1, 1.0), (7, 0.5), (64, 1.0))  # sizes of test batches, and shares of the job's steps


def export(job: ExportJob) -> Outcome:
    """Return the model as ONNX, and its difference from torch on random inputs.

    Raises:
        TrainingError: it is too large for a file, or the outputs differ.
    """
    started = time.perf_counter()
    with seeded(0, torch.device("cpu")):
        models = []
        for weights in (job.weights, *job.others):
            models.append(Model(Hyperparameters(**job.hyperparameters), job.shape))
            models[-1].load_weights(weights)
        model = models[0] if len(models) == 1 else Ensemble(models)
        model.eval()
        if traced_part(model) is not None:
            file, difference = _trace_checked(model, job.steps)
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


def _trace_checked(model: Model | Ensemble, steps: int) -> tuple[bytes, float]:
    """Return a traced graph and its difference, for any number of steps if possible.

    Raises:
        TrainingError: no graph gives the same outputs.
    """
    shape, problem = model.shape, TrainingError("has no number of steps")
    candidates: list[int | None] = [] if shape.of_series else [None]
    if shape.window:  # else the lengths of sequences differ
        candidates.append(shape.window)
    for fixed in candidates:
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
        rule = f"its weights are {n_bytes / 1e9:.1f} GB, and an ONNX file holds 2 GB"
        raise TrainingError(rule, remedy="make hidden_size or embedding_size smaller to export it")
    return bytes(model.SerializeToString())


def _difference(model: Model | Ensemble, file: bytes, steps: int, *, fixed: int | None) -> float:
    """Return the largest difference between ONNX and torch, relative to the largest output.

    The longest sequence has `steps`; `fixed` is the only number of steps that the graph takes, or
    None. Raises TrainingError if the graph does not run, or its outputs differ.
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
        named = {_input_name(x): x, "lengths": lengths, "prefix": prefix}
        feed = {name: tensor.numpy() for name, tensor in named.items() if tensor is not None}
        try:
            (found,) = session.run(None, feed)
        except Exception as error:  # of classes that onnxruntime does not name
            problem = one_line(error)[:200]
            raise TrainingError(f"its graph does not read {n_steps} steps: {problem}") from None
        with torch.inference_mode():
            expected = model(x, lengths, prefix)
            true = exact(x.double() if x.is_floating_point() else x, lengths, prefix)
        if found.shape != tuple(expected.shape):
            rule, remedy = f"it returns {found.shape}, torch {tuple(expected.shape)}", None
            if len(found) != size and traced_part(model) is not None:
                rule += ": the size of the batch became a constant"
                remedy = "write x.shape[0] for len(x)"
            raise TrainingError(rule, remedy=remedy)
        outputs = [torch.from_numpy(found).double(), expected.double(), true]
        if model.shape.each_step:
            assert lengths is not None
            real = real_steps(lengths, x.shape[1], x.device)
            outputs = [output[real] for output in outputs]
        of_onnx, of_torch, true = outputs
        largest = float(of_torch.abs().max()) or 1.0
        difference = float((of_onnx - of_torch).abs().max()) / largest
        # A recurrence may amplify rounding errors. Then both are compared to float64.
        off, rounding = ((o - true).abs().max() / largest for o in (of_onnx, of_torch))
        if not (difference <= _TOLERANCE or off <= _ROUNDING * rounding):
            rule = f"it differs from torch by {difference:.1e} of the largest output, more than "
            raise TrainingError(f"{rule}{_TOLERANCE:g}")
        worst = max(worst, difference)
    return worst


def _random_inputs(
    model: Model | Ensemble, size: int, steps: int, *, fixed: bool
) -> tuple[Tensor, Tensor | None]:
    """Draw a batch of `size` sequences from torch's generator, the first with all `steps`.

    If `fixed`, all have as many. Future rows follow where columns are known ahead.
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


def _input_name(x: Tensor) -> str:
    return "inputs" if x.is_floating_point() else "tokens"


def to_onnx(model: Model | Ensemble) -> onnx.ModelProto:
    """Return the graph of a model without dropout, for batches and sequences of any length.

    A linear path over whole sequences fixes their length.

    Inputs: `inputs`, (batch, steps, features), the last steps being future rows where columns are
    known ahead, or `tokens`, (batch, steps), int64; except for windows `lengths`, (batch,), int64,
    the numbers of real steps; for translations `prefix`, (batch, tokens), int64. The output,
    `outputs`, is that of `forward`.
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
    found = [_add(g, each) for each in models if isinstance(each, Model)]
    y = _mean(g, [y for y, _ in found], bool(shape.classes))
    return g.to_model(inputs, "outputs", y, found[0][1])


def _mean(g: Graph, outputs: list[str], classes: bool) -> str:
    """Add `tuner.training.model.mean_outputs`."""
    if len(outputs) == 1:
        return outputs[0]
    if not classes:
        return g.op("Mean", *outputs)
    logs = [g.op("LogSoftmax", y, axis=-1) for y in outputs]
    largest = g.op("Max", *logs)  # so that the exponentials do not underflow
    shares = [g.op("Exp", g.op("Sub", log, largest)) for log in logs]
    return g.op("Add", largest, g.op("Log", g.op("Mean", *shares)))


def _add(g: Graph, model: Model) -> tuple[str, list[str | int]]:
    """Add a model; return its output, and the output's shape."""
    shape = model.shape
    embedded = known = ""
    if model.categories is not None:
        embedded, known = ops.add_categories(g, model.categories, "inputs")
    x, coming = ops.add_split(g, "inputs", shape)
    ahead = ops.add_beside(g, coming, known)
    if model.embedding is not None:
        x = g.op("Gather", model.embedding.weight, "tokens")
    lengths = real = ""
    if not shape.of_series:
        lengths, real = "lengths", _real_steps(g, x, "lengths")
    if model.normalization is not None:
        x, level = ops.add_normalization(g, model.normalization, x)
    window = x
    if model.decomposition is not None:
        x = ops.add_decomposition(g, model.decomposition, x)
    x = ops.add_beside(g, x, embedded)
    if model.convolution is not None:
        x = ops.add_convolution(g, model.convolution, ops.mask(g, x, real))
    if model.segments is not None:
        x, lengths = ops.add_segments(g, model.segments, ops.mask(g, x, real), lengths)
        real = _real_steps(g, x, lengths) if lengths else ""
    counts = g.op("Cast", lengths, to=TensorProto.INT32) if lengths else ""
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (steps, batch, features)
    for stack in model.recurrent.stacks:
        x, states = ops.add_layers(g, stack, x, counts)
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (batch, steps, width)

    if model.pooling is None:
        return ops.add_linear(g, model.head, x), ["batch", "steps", shape.classes or shape.targets]
    pooled = _pool(g, model.pooling, x, states[0], real, lengths)
    if isinstance(model.head, Translator):
        return _translate(g, model.head, [pooled, *states[1:]]), ["batch", "said", shape.classes]
    y, out = _head(g, model, [pooled, *states[1:]], ahead)
    if model.linear_path is not None:
        linear = ops.add_linear_path(g, model.linear_path, window, coming)
        y = g.op("Add", y, g.op("Unsqueeze", linear, axes(3)) if shape.quantiles else linear)
    if model.normalization is not None:
        y = ops.add_denormalization(g, y, level, shape)
    return y, out


def _real_steps(g: Graph, x: str, lengths: str) -> str:
    """Add a mask of the real steps of (batch, steps, ...), (batch, steps, 1)."""
    n_steps = g.op("Gather", g.op("Shape", x), np.array(1))
    step = g.op("Range", np.array(0), n_steps, np.array(1))  # (steps,)
    real = g.op("Less", step, g.op("Unsqueeze", lengths, axes(1)))
    return g.op("Unsqueeze", real, axes(2))


def _pool(g: Graph, pooling: nn.Module, outputs: str, last: str, real: str, lengths: str) -> str:
    """Add a pooling from (batch, steps, width) to (batch, width)."""
    if isinstance(pooling, Last):
        return last
    if isinstance(pooling, Max):
        return g.op("ReduceMax", ops.mask(g, outputs, real, -np.inf), axes=[1], keepdims=0)
    outputs = ops.mask(g, outputs, real)  # in ONNX, outputs at padded steps are undefined
    if isinstance(pooling, Mean):
        if not real:
            return g.op("ReduceMean", outputs, axes=[1], keepdims=0)
        total = g.op("ReduceSum", outputs, axes(1), keepdims=0)
        count = g.op("Unsqueeze", g.op("Cast", lengths, to=TensorProto.FLOAT), axes(1))
        return g.op("Div", total, count)
    assert isinstance(pooling, Attention)
    query = g.op("Unsqueeze", ops.add_linear(g, pooling.query, last), axes(1))
    hidden = g.op("Tanh", g.op("Add", query, ops.add_linear(g, pooling.key, outputs)))
    energies = ops.add_linear(g, pooling.energy, hidden)  # (batch, steps, 1)
    energies = ops.mask(g, energies, real, -np.inf)
    weights = g.op("Transpose", g.op("Softmax", energies, axis=1), perm=[0, 2, 1])
    return g.op("Squeeze", g.op("MatMul", weights, outputs), axes(1))


def _bridged(g: Graph, head: Decoder, states: list[str]) -> list[str]:
    """Add `Decoder.first`."""
    return [
        s if isinstance(bridge, nn.Identity) else ops.add_linear(g, bridge, s)
        for bridge, s in zip(head.bridges, states, strict=True)
    ]


def _head(g: Graph, model: Model, states: list[str], coming: str) -> tuple[str, list[str | int]]:
    """Add the head after the pooling; return its output, and the output's shape."""
    head, shape = model.head, model.shape
    quantiles = [len(shape.quantiles)] if shape.quantiles else []
    out: list[str | int] = ["batch", shape.horizon, shape.targets, *quantiles]
    if isinstance(head, Decoder):
        states = _bridged(g, head, states)
        if isinstance(head, InSegments):
            return _decode_pieces(g, head, states, coming), out
        assert isinstance(head, Recursive)
        return _decode_steps(g, head, states, coming), out
    numbers = ops.add_linear(g, head, states[0])
    if model.local is not None:
        numbers = g.op("Add", numbers, ops.add_local_head(g, model.local, states[0], coming))
    if shape.classes:
        return numbers, ["batch", shape.classes]
    return ops.add_values(g, numbers, shape), out


def _translate(g: Graph, head: Translator, states: list[str]) -> str:
    """Add the logits of the token after each of the prefix, (batch, prefix, tokens)."""
    states = _bridged(g, head, states)
    x = g.op("Transpose", g.op("Gather", head.embedding.weight, "prefix"), perm=[1, 0, 2])
    x, _ = ops.add_layers(g, head.layer, x, "", states)
    return ops.add_linear(g, head.head, g.op("Transpose", x, perm=[1, 0, 2]))


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
        x = g.op("Add", x, ops.add_linear(g, head.known, rows))
    x = g.op("Reshape", x, axes(1, -1, units))  # (1, batch * pieces, units)
    repeated = []
    for state, size in zip(states, head.sizes, strict=True):
        to = g.op("Concat", batch, axes(pieces, size), axis=0)
        state = g.op("Expand", g.op("Unsqueeze", state, axes(1)), to)
        repeated.append(g.op("Reshape", state, axes(-1, size)))
    _, states = ops.add_layers(g, head.layer, x, "", repeated)
    numbers = ops.add_linear(g, head.head, states[0])  # (batch * pieces, steps * numbers)
    numbers = g.op("Reshape", numbers, axes(-1, pieces * head.head.out_features))
    values = ops.add_values(g, numbers, head.shape)
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
        _, states = ops.add_layers(g, head.layer, g.op("Unsqueeze", x, axes(0)), "", states)
        values = ops.add_values(g, ops.add_linear(g, head.head, states[0]), shape)
        values = g.op("Squeeze", values, axes(1))  # (batch, targets[, quantiles])
        x = values
        if shape.quantiles:
            x = g.op("Gather", values, np.array(middle_at(shape)), axis=2)
        return [x, *states], values

    values = g.loop(shape.horizon, [begin, *states], step)  # (horizon, batch, targets[, quantiles])
    return g.op("Transpose", values, perm=[1, 0, 2, 3] if shape.quantiles else [1, 0, 2])


def traced_part(model: Model | Ensemble) -> str | None:
    """Return the name of the first part whose graph torch traces; None if there is none.

    Torch traces classes from user code, and cells for which ONNX has no operator.
    """
    for module in model.modules():
        if isinstance(module, UserLayer | UserModel):
            return module.name
        cell = ops.cell_of(module)
        if cell is not None and not cell.operator:
            return cell.title
    return None


def trace(model: Model | Ensemble, x: Tensor, lengths: Tensor | None, *, fixed: bool) -> bytes:
    """Return a graph like those of `to_onnx`, traced by torch: loops over steps are unrolled.

    Args:
        model: without dropout.
        x: (batch, steps, inputs), or tokens, (batch, steps).
        lengths: numbers of real steps, (batch,); None for forecasts.
        fixed: whether the graph takes no other number of steps than `x` has.

    Raises:
        TrainingError: torch cannot export it.
    """
    name = _input_name(x)
    dynamic = {name: {0: "batch"}, "outputs": {0: "batch"}}
    if not fixed:
        dynamic[name][1] = "steps"
    if model.shape.each_step:
        dynamic["outputs"][1] = "steps"
    names, arguments = [name], [x]
    if lengths is not None:
        names, arguments = [name, "lengths"], [x, lengths]
        dynamic["lengths"] = {0: "batch"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            with warnings.catch_warnings():  # the graph is checked afterwards
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model,
                    tuple(arguments),
                    str(file),
                    input_names=names,
                    output_names=["outputs"],
                    dynamic_axes=dynamic,
                    opset_version=OPSET,
                    dynamo=False,
                )
        except Exception as error:  # of many classes
            problem = one_line(str(error).partition("\n")[0]).partition(". Please")[0]
            raise TrainingError(f"torch has no ONNX of {traced_part(model)}: {problem}") from None
        graph = onnx.load(file)
    if "lengths" in names and all(each.name != "lengths" for each in graph.graph.input):
        # Every model of sequences has this input, used or not.
        unused = onnx.helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"])
        graph.graph.input.append(unused)
    return bytes(graph.SerializeToString())
