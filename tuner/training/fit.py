"""One model in training on one split of the data: an epoch, and the score after it."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from tuner.data import DataRef, PairsRef, SeriesRef
from tuner.data.metrics import score
from tuner.data.vocabulary import UNKNOWN
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import TrainJob
from tuner.training.averaging import WeightAverage
from tuner.training.categories import with_unknown_categories
from tuner.training.losses import make_loss
from tuner.training.model import Model
from tuner.training.optimizers import make_optimizer, make_schedule
from tuner.training.predict import in_units, model_outputs
from tuner.training.samples import open_samples, split
from tuner.training.seeding import Generators
from tuner.training.sequence_path import fit_sequence_path
from tuner.training.translator import translate
from tuner.training.window_path import fit_path

__all__ = ["Fit"]

_TEXTS = 256  # whose losses are taken at once


class Fit:
    """A model with its data, optimizer and loss; first weights are drawn when it is made.

    Args:
        job: gives metric, the schedule's epochs and mixed_precision.
        parameters: the job's hyperparameters.
        data: the split.
        device: where to train.
        generators: draw the order of the samples, and which tokens are read as unknown.
    """

    def __init__(
        self,
        job: TrainJob,
        parameters: Hyperparameters,
        data: DataRef,
        device: torch.device,
        generators: Generators,
    ) -> None:
        self.metric, self.parameters, self.generators = job.metric, parameters, generators
        self.device = device
        self.data = data = data.with_window(parameters.window)
        self.samples = open_samples(data, device)
        self.train_index = self.samples.index(data.train_samples())  # (train samples,)
        self.scored_index = self.samples.index(data.evaluate_samples())  # (evaluation samples,)
        self.scored = self.scored_index.cpu().numpy()
        self.truth = data.truth_of(self.scored)  # in units, or classes
        self.scored_weights = data.weights_of(self.scored)

        self.model = Model(parameters, data.shape).to(device)
        if parameters.linear_path:
            self._fit_path()
        self.weights = list(self.model.parameters())
        self.average = None
        if over := parameters.weight_averaging:
            steps = math.ceil(len(self.train_index) / parameters.batch_size)
            self.average = WeightAverage(self.model, epochs=over, steps=steps)
        self.loss = make_loss(parameters, data, device)
        self.optimizer = make_optimizer(parameters, self.weights)
        self.schedule = make_schedule(
            parameters, self.optimizer, epochs=job.schedule_epochs or job.epochs
        )
        self.half = job.mixed_precision and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half)

    @property
    def trained(self) -> Model:
        """What the training has come to: the model, or the average of its weights."""
        return self.model if self.average is None else self.average.model

    def _fit_path(self) -> None:
        """Have the model begin as a linear one."""
        if isinstance(self.data, SeriesRef):
            fitted = self.samples.index(self.data.fitted_samples())
            fit_path(self.model, self.samples, fitted, self.data)
        else:
            balanced = self.parameters.class_weights == "balanced"
            fit_sequence_path(self.model, self.samples, self.train_index, balanced=balanced)

    def train_epoch(self) -> float:
        """Take every training sample once; return the mean loss, of each before its step."""
        self.model.train()
        precision = torch.autocast(self.device.type) if self.half else nullcontext()
        foreach = self.device.type != "cpu"  # for a few small tensors one by one is faster
        total, n_losses = torch.zeros((), dtype=torch.float64, device=self.device), 0
        for batch in split(self._shuffle(), self.parameters.batch_size):
            self.optimizer.zero_grad(set_to_none=True)
            x, lengths = self.samples.inputs(batch)
            x = self._with_unknown(x)
            prefix, targets = self.samples.prefix(batch), self.samples.targets(batch)
            with precision:
                outputs = self.model(x, lengths, prefix)
            loss = self.loss(outputs.float(), targets, self.samples.weights(batch))
            torch.autograd.backward(self.scaler.scale(loss))
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.weights, self.parameters.gradient_clip, foreach=foreach)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average is not None:
                self.average.update()
            n = self._n_losses(x, lengths) if prefix is None else int((targets != -1).sum())
            total.add_(loss.detach(), alpha=n)  # read once, after the epoch
            n_losses += n
        return total.item() / n_losses

    def _with_unknown(self, x: Tensor) -> Tensor:
        """Return what is read, some tokens or categories as unknown; padding and numbers stay.

        The training part holds no other unknown token, unless rare ones are: without these the
        embedding of what nobody has seen would be what chance gave it.
        """
        rate, shape = self.parameters.unknown_rate, self.data.shape
        if shape.categories and rate:
            return with_unknown_categories(x, shape, rate, self.generators.unknown)
        if not shape.vocabulary or not rate:
            return x
        drawn = torch.rand(x.shape, generator=self.generators.unknown).to(x.device) < rate
        return x.masked_fill(drawn & (x != 0), UNKNOWN)

    def _n_losses(self, x: Tensor, lengths: Tensor | None) -> int:
        """Return how many samples, or real steps that have their own, a batch's loss is of."""
        if not self.data.shape.each_step:
            return len(x)
        return x.shape[:2].numel() if lengths is None else int(lengths.sum())

    def _shuffle(self) -> Tensor:
        """Return the training samples in a new order."""
        order = torch.randperm(
            len(self.train_index), generator=self.generators.shuffling, dtype=self.train_index.dtype
        )
        return self.train_index.index_select(0, order.to(self.train_index.device))

    def evaluate(self) -> tuple[float, float]:
        """Return loss and metric of the evaluation samples.

        In full precision, as trained weights are used, so that the score can be had again.
        """
        if isinstance(self.data, PairsRef):
            return self._evaluate_texts()
        outputs = model_outputs(self.trained, self.samples, self.scored_index)
        if self.data.shape.classes:
            targets = torch.from_numpy(self.truth).to(self.device)  # of real steps alone
        else:
            targets = self.samples.targets(self.scored_index)
            if self.data.shape.each_step:  # of real steps alone
                targets = targets[~targets.isnan().any(dim=2)].unsqueeze(1)
        weights = None
        if (of_scored := self.scored_weights) is not None:
            relative = np.asarray(of_scored / of_scored.mean(), np.float32)
            shape = targets.shape if self.data.shape.classes else targets.shape[:2]
            weights = torch.from_numpy(relative).to(self.device).view(shape)
        val_loss = self.loss(outputs, targets, weights).item()
        if not math.isfinite(val_loss):
            return val_loss, math.nan  # there is nothing to measure
        predicted = in_units(outputs, self.data, self.scored)
        found = score(
            self.metric, self.truth, predicted, self.data, self.scored, self.scored_weights
        )
        return val_loss, found

    @torch.inference_mode()
    def _evaluate_texts(self) -> tuple[float, float]:
        """Return the loss of each token after the true ones, and the metric of what is said."""
        model = self.trained.eval()
        total, n_losses = 0.0, 0
        for batch in split(self.scored_index, _TEXTS):
            targets, (x, lengths) = self.samples.targets(batch), self.samples.inputs(batch)
            if n := int((targets != -1).sum()):
                loss = self.loss(model(x, lengths, self.samples.prefix(batch)), targets)
                total, n_losses = total + n * loss.item(), n_losses + n
        said = translate([model], self.samples, self.scored, self.parameters.beam)
        return total / max(1, n_losses), score(self.metric, self.truth, said, self.data)
