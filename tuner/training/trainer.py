"""The training loop: from a job to its outcome."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, optim

from tuner.data import DataRef, PairsRef, SeriesRef, Shape
from tuner.data.metrics import score
from tuner.data.vocabulary import UNKNOWN
from tuner.errors import Interrupted
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Epoch, ExportJob, Job, Outcome, OutcomeState, PredictJob, TrainJob, Weights
from tuner.metrics import METRICS
from tuner.training.device import (
    Generators,
    TrainingError,
    check_cuda,
    describe_device,
    give_memory_back,
    peak_memory_mb,
    pick_device,
    reason_of,
    seeded,
)
from tuner.training.layers import with_unknown_categories
from tuner.training.linear_path import fit_path, fit_sequence_path
from tuner.training.losses import make_loss
from tuner.training.model import Model, WeightAverage, in_units, model_outputs, predict, translate
from tuner.training.optimizers import make_schedule, make_steps
from tuner.training.samples import Split, split

Report = Callable[[Epoch], bool]
"""Called with every finished epoch; returns False to prune the trial."""

_TEXTS = 256  # of an evaluation batch
_REPEATS = 15  # predictions that are timed
_MOST_S = 0.1  # seconds for timing, after the first two predictions


class Fit:
    """A model with its data, optimizer and loss; the constructor draws the first weights.

    Args:
        job: gives the metric, the epochs of the schedule and mixed_precision.
        parameters: the job's hyperparameters.
        data: the split.
        device: of the model.
        generators: draw the order of the samples and the unknown tokens.
        opened: the split as another training on the device has opened it; by default it is opened.
    """

    def __init__(
        self,
        job: TrainJob,
        parameters: Hyperparameters,
        data: DataRef,
        device: torch.device,
        generators: Generators,
        opened: Split | None = None,
    ) -> None:
        self.metric, self.parameters, self.generators = job.metric, parameters, generators
        self.device = device
        opened = opened or Split(data.with_window(parameters.window), device)
        self.data = data = opened.data
        self.samples, self.train_index = opened.samples, opened.train_index
        self.scored_index, self.scored = opened.scored_index, opened.scored
        self.truth, self.scored_weights = opened.truth, opened.scored_weights

        self.model = Model(parameters, data.shape).to(device)
        if parameters.linear_path and isinstance(data, SeriesRef):
            fitted = self.samples.index(data.fitted_samples())
            fit_path(self.model, self.samples, fitted, data)
        elif parameters.linear_path:
            balanced = parameters.class_weights == "balanced"
            fit_sequence_path(self.model, self.samples, self.train_index, balanced=balanced)
        self.half = job.mixed_precision and device.type == "cuda"
        self.steps = make_steps(self.model, parameters, half=self.half)
        self.optimizer = self.steps.optimizer
        self.average = None
        if over := parameters.weight_averaging:
            steps = math.ceil(len(self.train_index) / parameters.batch_size)
            self.average = WeightAverage(self.model, self.steps.parts, epochs=over, steps=steps)
        self.loss = make_loss(parameters, data, device)
        self.schedule = make_schedule(
            parameters, self.optimizer, epochs=job.schedule_epochs or job.epochs
        )

    @property
    def trained(self) -> Model:
        """The model, or the average of its weights."""
        return self.model if self.average is None else self.average.model

    def train_epoch(self) -> float:
        """Train on every sample once; return the mean loss, each before its step."""
        self.model.train()
        precision = torch.autocast(self.device.type) if self.half else nullcontext()
        index = self.train_index
        order = torch.randperm(len(index), generator=self.generators.shuffling, dtype=index.dtype)
        shuffled = index.index_select(0, order.to(index.device))
        # No number is read from the device before the end of the epoch.
        losses, counts = [], []
        for batch in self.samples.batches(shuffled, self.parameters.batch_size):
            x = self._with_unknown(batch.inputs)
            with precision:
                outputs = self.model(x, batch.lengths, batch.prefix)
            loss = self.loss(outputs.float(), batch.targets, batch.weights)
            self.steps.take(loss)
            if self.average is not None:
                self.average.update()
            losses.append(loss.detach())
            counts.append(batch.losses)
        means = torch.stack(losses).double().cpu().numpy()
        return float(means @ counts) / sum(counts)

    def _with_unknown(self, x: Tensor) -> Tensor:
        """Replace some tokens or categories by the unknown one; padding and numbers stay.

        The training part may have no other unknown token, and its embedding would keep its random
        first values.
        """
        rate, shape = self.parameters.unknown_rate, self.data.shape
        if shape.categories and rate:
            return with_unknown_categories(x, shape, rate, self.generators.unknown)
        if not shape.vocabulary or not rate:
            return x
        drawn = torch.rand(x.shape, generator=self.generators.unknown) < rate
        drawn = drawn.to(x.device, non_blocking=True)
        return x.masked_fill(drawn & (x != 0), UNKNOWN)

    def evaluate(self) -> tuple[float, float]:
        """Return loss and metric of the evaluation samples, in full precision.

        A prediction with the trained weights thus gives the same score.
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
            return val_loss, math.nan
        predicted = in_units(outputs, self.data, self.scored)
        return val_loss, score(
            self.metric, self.truth, predicted, self.data, self.scored, self.scored_weights
        )

    @torch.inference_mode()
    def _evaluate_texts(self) -> tuple[float, float]:
        """Return the mean loss of the tokens after the true ones, and the metric of the texts."""
        model = self.trained.eval()
        total, n_losses = 0.0, 0
        for batch in split(self.scored_index, _TEXTS):
            targets, (x, lengths) = self.samples.targets(batch), self.samples.inputs(batch)
            if n := int((targets != -1).sum()):
                loss = self.loss(model(x, lengths, self.samples.prefix(batch)), targets)
                total, n_losses = total + n * loss.item(), n_losses + n
        found = translate([model], self.samples, self.scored, self.parameters.beam)
        return total / max(1, n_losses), score(self.metric, self.truth, found, self.data)


@torch.inference_mode()
def latency_ms(fit: Fit) -> float:
    """Return the median latency of one prediction, in milliseconds.

    Measured with torch on the first scored sample, on the device that trained; an exported model
    is faster. The weights do not matter, and nothing random is drawn.
    """
    model = fit.trained
    model.eval()
    x, lengths = fit.samples.inputs(fit.scored_index[:1])
    seconds: list[float] = []
    while len(seconds) < _REPEATS and (len(seconds) < 2 or sum(seconds) < _MOST_S):
        started = time.perf_counter()
        if fit.samples.prefix(fit.scored_index[:1]) is None:
            model(x, lengths)
        else:
            translate([model], fit.samples, fit.scored[:1], fit.parameters.beam)
        if fit.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:])  # the first one warms up


def check_finite(parameters: Hyperparameters, epoch: int, **numbers: float) -> None:
    """Raise TrainingError for the first of an epoch's numbers, by name, that is not finite."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            rate = f"learning_rate {parameters.learning_rate:g}"
            raise TrainingError(f"{name} is {value} at epoch {epoch} ({rate})")


class _PrunedError(Exception):
    """The report returned False."""


@dataclass(frozen=True)
class _Best:
    """The best epoch of a fold; without validation, the last."""

    epoch: int
    metric: float | None
    weights: Weights | None


def train(job: TrainJob, report: Report) -> Outcome:
    """Train the folds one by one, each until its last epoch, early stopping or pruning.

    A job that does not validate trains all its epochs, and has neither score nor history.

    Except for its times, the outcome depends on the job alone. A model that diverges or does not
    fit into memory gives a failed outcome with the finished epochs; all numbers in the history of
    an outcome are finite.
    """
    trainer = _Trainer(job, report)
    state, reason = OutcomeState.COMPLETE, None
    best: list[_Best] = []  # of every fold
    try:
        for fold in range(len(job.folds)):
            best.append(trainer.train_fold(fold))
            give_memory_back()
    except _PrunedError:
        state = OutcomeState.PRUNED
    except (TrainingError, MemoryError, RuntimeError) as error:  # torch: RuntimeError for memory
        state, reason = OutcomeState.FAILED, reason_of(error)
    give_memory_back()

    complete = state is OutcomeState.COMPLETE
    scores = [b.metric for b in best if b.metric is not None]
    return Outcome(
        state,
        objective=statistics.fmean(scores) if complete and scores else None,
        best_epoch=best[-1].epoch if complete else None,
        history=tuple(trainer.history),
        reason=reason,
        seconds=trainer.seconds,
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        device=trainer.device,
        n_weights=trainer.n_weights if complete else None,
        latency_ms=trainer.latency_ms if complete else None,
        weights=best[-1].weights if complete else None,
    )


class _Trainer:
    """Trains the folds of a job one by one, and keeps the history of all."""

    def __init__(self, job: TrainJob, report: Report) -> None:
        self.job, self.report = job, report
        self.parameters = Hyperparameters(**job.hyperparameters)
        self.sign = METRICS[job.metric].sign  # sign * metric is what gets smaller
        self.history: list[Epoch] = []
        self._started, self._paused = time.perf_counter(), 0.0
        self.device = ""  # see `describe_device`
        self.n_weights: int | None = None  # of the latest fold, as the next
        self.latency_ms: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training since the start, without reports and the measured latency."""
        return time.perf_counter() - self._started - self._paused

    def train_fold(self, fold: int) -> _Best:
        """Train a model on one fold, and return its best epoch.

        Raises:
            _PrunedError: `report` returned False.
            TrainingError: a number is not finite, or this machine lacks the device.
        """
        device = pick_device(self.job.device)
        self.device = describe_device(device)
        with seeded(self.job.seed, device, fold=fold) as generators:
            fit = Fit(self.job, self.parameters, self.job.folds[fold], device, generators)
            best = self._validate(fit, fold) if self.job.validates else self._train_all(fit)
            self.n_weights = sum(weight.numel() for weight in fit.model.parameters())
            if self.job.validates and fold == len(self.job.folds) - 1:
                trained = time.perf_counter()
                self.latency_ms = latency_ms(fit)
                self._paused += time.perf_counter() - trained
            return best

    def _validate(self, fit: Fit, fold: int) -> _Best:
        """Train with early stopping; the loss breaks ties between scores."""
        job, first = self.job, len(self.history)
        best: _Best | None = None
        best_so_far = (math.inf, math.inf)  # metric and loss: a metric of few rows often repeats
        for number in range(first, first + job.epochs):
            train_loss = fit.train_epoch()
            check_finite(self.parameters, number, train_loss=train_loss)
            val_loss, metric = fit.evaluate()
            check_finite(self.parameters, number, val_loss=val_loss, **{job.metric: metric})
            fit.schedule(val_loss)

            if best is None or (self.sign * metric, val_loss) < best_so_far:
                best_so_far = self.sign * metric, val_loss
                best = _Best(number, metric, fit.trained.weights() if job.keep_weights else None)
            last = number == first + job.epochs - 1 or number - best.epoch >= job.patience
            fold_score = best.metric if last and len(job.folds) > 1 else None
            epoch = Epoch(
                number, train_loss, val_loss, metric, time.time(), fold=fold, fold_score=fold_score
            )
            self.history.append(epoch)
            reported = time.perf_counter()
            keep_training = self.report(epoch)
            self._paused += time.perf_counter() - reported  # it may wait for an answer
            if not keep_training:
                raise _PrunedError
            if last:
                break
        assert best is not None, "a job has epochs"
        return best

    def _train_all(self, fit: Fit) -> _Best:
        """Train all epochs; the training loss takes the place of the validation loss."""
        for number in range(self.job.epochs):
            train_loss = fit.train_epoch()
            check_finite(self.parameters, number, train_loss=train_loss)
            fit.schedule(train_loss)
        weights = fit.trained.weights() if self.job.keep_weights else None
        return _Best(self.job.epochs - 1, None, weights)


def run_job(job: Job, report: Report) -> Outcome:
    """Return the outcome of a job. Its errors become a failed outcome; an interruption is raised.

    Raises:
        RuntimeError: CUDA is broken in this process, where every later job would fail too.
            Another process can do the job.
    """
    started = time.perf_counter()
    try:
        outcome = _do(job, report)
    except Interrupted:
        raise
    except Exception as error:
        outcome = Outcome(
            OutcomeState.FAILED,
            reason=reason_of(error),
            seconds=time.perf_counter() - started,
            finished_at=time.time(),
            peak_memory_mb=peak_memory_mb(),
        )
    if outcome.state is OutcomeState.FAILED:
        check_cuda()
    return outcome


def _do(job: Job, report: Report) -> Outcome:
    match job:
        case PredictJob():
            return predict(job)
        case ExportJob():
            from tuner.training.onnx_export import export  # onnx and its runtime: seldom needed

            return export(job)
    assert isinstance(job, TrainJob), "see `tuner.training.batched` for groups"
    return train(job, report)


def warm_up() -> None:
    """Import modules that would otherwise count in the time of the first job.

    The first optimizer imports torch's compiler, half of torch, to keep a method from being
    compiled. Nothing is compiled here, so the method is taken as it is.
    """
    method = inspect.unwrap(optim.Optimizer.add_param_group)
    vars(method).setdefault("__dynamo_disable", method)
    optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    nothing = SeriesRef("", Shape("forecast", 1))
    score("rmse", np.zeros((2, 1, 1)), np.zeros((2, 1, 1)), nothing)
