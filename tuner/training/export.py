"""Export: trained weights as an ONNX model, checked against the model that they came from."""

from __future__ import annotations

import copy
import time

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from tuner.errors import one_line
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import LARGEST_ONNX, Exported, ExportJob, Outcome, OutcomeState
from tuner.training.device import peak_memory_mb
from tuner.training.ensemble import Ensemble
from tuner.training.errors import TrainingError
from tuner.training.model import Model
from tuner.training.onnx_model import to_onnx
from tuner.training.padding import real_steps
from tuner.training.seeding import seeded
from tuner.training.traced import has_own_code, trace

__all__ = ["export"]

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
