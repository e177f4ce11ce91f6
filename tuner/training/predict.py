"""Predictions of a model in training and of trained weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.data import DataRef, PairsRef
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Outcome, OutcomeState, PredictJob
from tuner.training.decoders import translate
from tuner.training.device import give_memory_back, peak_memory_mb, pick_device, seeded
from tuner.training.layers import real_steps
from tuner.training.model import Model, mean_outputs
from tuner.training.samples import Samples, open_samples, split

__all__ = ["in_units", "model_outputs", "predict"]

_BATCH = 1024  # not the job's batch_size, so that a score repeats bit for bit
_BATCH_NUMBERS = 2**24  # numbers in a layer: long or wide sequences make smaller batches


def predict(job: PredictJob) -> Outcome:
    """Predict every sample of the evaluation part, in the data's units."""
    started = time.perf_counter()
    try:
        predictions, attention = _predict(job)
    finally:
        give_memory_back()
    return Outcome(
        OutcomeState.COMPLETE,
        seconds=time.perf_counter() - started,
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        predictions=predictions,
        attention=attention,
    )


def _predict(job: PredictJob) -> tuple[np.ndarray, np.ndarray | None]:
    """Return predictions, and the attention weights of all steps if the model has any."""
    parameters = Hyperparameters(**job.hyperparameters)
    device = pick_device(job.device)
    data = job.data.with_window(parameters.window)
    samples = open_samples(data, device)
    with seeded(0, device):  # the constructor draws weights
        model = Model(parameters, data.shape).to(device)
    scored = data.evaluate_samples()
    index = samples.index(scored)
    if isinstance(data, PairsRef):
        models = [copy.deepcopy(model) for _ in (job.weights, *job.others)]
        for each, weights in zip(models, (job.weights, *job.others), strict=True):
            each.load_weights(weights)
        return translate(models, samples, scored, parameters.beam), None
    outputs, attention = [], []
    for weights in (job.weights, *job.others):
        model.load_weights(weights)
        outputs.append(model_outputs(model, samples, index))
        if model.attends:
            attention.append(_attention(model, samples, index))
    together = mean_outputs(outputs, bool(data.shape.classes))
    attended = np.mean(attention, axis=0) if attention else None
    return in_units(together, data, scored), attended


@torch.inference_mode()
def model_outputs(model: Model, samples: Samples, index: Tensor) -> Tensor:
    """Return the outputs of the model for samples, without dropout.

    They are scaled values, (samples, horizon, targets[, quantiles]), or logits, (samples, classes).
    Where every step has an output, those of the real steps of all samples are concatenated:
    (steps, 1, targets) or (steps, classes).
    """
    model.eval()
    parts = []
    for batch in _batches(model, samples, index):
        x, lengths = samples.inputs(batch)
        outputs = model(x, lengths)
        if model.shape.each_step:
            if lengths is None:
                outputs = outputs.flatten(0, 1)
            else:
                outputs = outputs[real_steps(lengths, x.shape[1], x.device)]
            outputs = outputs if model.shape.classes else outputs.unsqueeze(1)
        parts.append(outputs)
    return torch.cat(parts)


def in_units(outputs: Tensor, data: DataRef, samples: np.ndarray) -> np.ndarray:
    """Return `model_outputs` in the data's units, float64, or as probabilities."""
    if data.shape.classes:
        outputs = functional.softmax(outputs.double(), dim=-1)
    return data.to_units(outputs.cpu().numpy(), samples)


@torch.inference_mode()
def _attention(model: Model, samples: Samples, index: Tensor) -> np.ndarray:
    """Return the attention weights, (samples, steps); nan after a sample's last step."""
    model.eval()
    parts = []
    for batch in _batches(model, samples, index):
        x, lengths = samples.inputs(batch)
        weights = model.attention(x, lengths)  # (batch, steps)
        if lengths is not None:
            real = real_steps(lengths, x.shape[1], x.device)
            weights = weights.masked_fill(~real, torch.nan)
        parts.append(weights.cpu().numpy())
    steps = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(p, ((0, 0), (0, steps - p.shape[1])), constant_values=np.nan) for p in parts]
    )


def _batches(model: Model, samples: Samples, index: Tensor) -> Iterator[Tensor]:
    """Split an index into batches, whose size depends on the model and the data alone."""
    numbers = samples.longest * max(16, model.widest)  # of one sample
    return split(index, max(1, min(_BATCH, _BATCH_NUMBERS // numbers)))
