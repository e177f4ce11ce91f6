"""A group of trainings as one: a batch of each member, one forward pass, one step of Adam.

`tuner.batching` says which jobs can be members, and which train together. A member has its own
first weights, order of samples, dropout masks, learning rate and end. All are those of its
training alone, so that both give the same numbers up to rounding; on a GPU the masks have the same
distribution.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from tuner.data.metrics import score
from tuner.errors import Interrupted
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob, Weights
from tuner.training.cuda_graph import GraphedStep, on_gpu
from tuner.training.device import (
    check_cuda,
    give_memory_back,
    lacks_memory,
    pick_device,
)
from tuner.training.group_member import Member
from tuner.training.group_windows import Batch, Windows
from tuner.training.layers import as_values
from tuner.training.model import WARMUP, in_units
from tuner.training.optimizers import JoinedSteps
from tuner.training.samples import Split
from tuner.training.stack import Sizes, Stack, stack_weights, write_weights
from tuner.training.trainer import run_job

GroupReport = Callable[[Sequence[tuple[str, Epoch]]], Sequence[bool]]
"""Called with the keys and newest epochs of members; returns for each whether it goes on."""

Score = Callable[[int], tuple[float, float]]
"""Called with the place of a member; returns its loss and metric on the evaluation samples."""

Masks = Sequence[Tensor | None]
"""The factors of dropout for a batch, see `Stack.forward`; empty without dropout."""

_BATCH = 1024  # windows that are evaluated at a time
_NUMBERS = {"cpu": 2**23, "cuda": 2**28}  # in a layer of all members, in an evaluation
_PREDICTED = {"cpu": 2**24, "cuda": 2**28}  # numbers in the predictions of all members
_FEW = 2  # members that go on alone on a CPU
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def train_group(jobs: Sequence[TrainJob], report: GroupReport) -> list[Outcome]:
    """Train jobs that `tuner.batching.groups_of` puts together.

    A member that diverges, or whose score fails, fails alone. An unexpected error of what they
    share fails all members that have not ended. Where memory is lacking these are trained one by
    one instead, from their beginnings; epochs that were reported before are not reported again.

    The seconds of an outcome are the member's preparation and its share of all that the group does
    at once, the same for all that take part in it; they add up to the group's.

    Args:
        jobs: of one group; each has one fold, and validates.
        report: called after every epoch with all members that still train, in the order of `jobs`.
            The answer for a job that cannot be pruned must be True.

    Returns:
        The outcomes, in the order of `jobs`.

    Raises:
        Interrupted: the process is to end.
        RuntimeError: CUDA is broken in this process.
    """
    members = [Member(job) for job in jobs]
    try:
        _train(members, report)
    except Interrupted:
        raise
    except Exception as error:
        for member in members:
            if member.state is None and not lacks_memory(error):
                member.fail(error)
    # Here the error is gone, and what its traceback held of the group.
    for member in members:
        member.release()
    give_memory_back()
    if any(member.state is OutcomeState.FAILED for member in members):
        check_cuda()
    return [_alone(m, report) if m.state is None else m.outcome() for m in members]


def _alone(member: Member, report: GroupReport) -> Outcome:
    """Train a job from its beginning, of which some epochs have been reported."""

    def goes_on(epoch: Epoch) -> bool:
        return epoch.epoch < member.reported or report([(member.job.key, epoch)])[0]

    outcome = run_job(member.job, goes_on)
    return dataclasses.replace(outcome, seconds=outcome.seconds + member.seconds)


@contextmanager
def _shared(members: Sequence[Member]) -> Iterator[None]:
    """Count the seconds of a block for all members alike."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        for member in members:
            member.seconds += seconds / len(members)


def _train(members: Sequence[Member], report: GroupReport) -> None:
    device = pick_device(members[0].job.device)
    with _shared(members):
        window = members[0].parameters.window
        opened = Split(members[0].job.folds[0].with_window(window), device)
    for member in members:
        member.prepare(device, opened)
    training = [member for member in members if member.state is None]
    with _shared(training):
        group: Group | Singles | None = Group(training, device) if training else None
    while group is not None:
        ends: list[tuple[Member, Epoch]] = []
        with _shared(training):
            train_losses = group.train_epoch()
            score = group.evaluate()
            for at, (member, train_loss) in enumerate(zip(training, train_losses, strict=True)):
                with member.fails_alone():
                    epoch = member.add(train_loss, *score(at))
                    if member.job.keep_weights and member.best is epoch:
                        member.weights = group.weights_of(at)
                    ends.append((member, epoch))
            del score  # predictions
        if ends:
            answers = report([(member.job.key, epoch) for member, epoch in ends])
            for (member, _), go_on in zip(ends, answers, strict=True):
                member.answered(go_on)
            for member, _ in ends:  # where one lacks memory, all have their answers
                with member.fails_alone():
                    member.end_if_done()
        going = [member for member in training if member.state is None]
        if len(going) < len(training):
            for member in training:
                if member.state is not None:
                    member.release()
            with _shared(going):
                group = group.keep(going) if going else None
            training = going


class Singles:
    """The last members of a group on a CPU, where so few are faster one by one."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def keep(self, members: Sequence[Member]) -> Singles:
        """See `Group.keep`."""
        return Singles(members)

    def weights_of(self, member: int) -> Weights:
        """See `Group.weights_of`."""
        return self.members[member].fit.trained.weights()

    def train_epoch(self) -> list[float]:
        """See `Group.train_epoch`."""
        losses = []
        for member in self.members:
            with torch.random.fork_rng(devices=[]):  # dropout takes masks from the global generator
                torch.default_generator.set_state(member.dropout.get_state())
                losses.append(member.fit.train_epoch())
                member.dropout.set_state(torch.default_generator.get_state())
        return losses

    def evaluate(self) -> Score:
        """See `Group.evaluate`."""
        return lambda at: self.members[at].fit.evaluate()


class Group:
    """The stacked weights of members, with the state of their optimizer."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.device = device
        fits = [member.fit for member in members]
        self.train_windows = Windows(fits, train=True)
        self.scored_windows = Windows(fits, train=False)
        self._done = 0  # steps of the optimizer
        self._set_members(members)
        self.flat = stack_weights([m.fit.model for m in members], self.sizes, device)
        self.average = self.flat.clone()
        self.moments = [torch.zeros_like(self.flat) for _ in range(2)]
        self._parts = self._trained()

    def keep(self, members: Sequence[Member]) -> Group | Singles:
        """Return the group with some of its members, as narrow as these; this one is used up."""
        if len(members) <= _FEW and self.device.type == "cpu":
            for member in members:
                self._release(member)
            return Singles(members)
        rows = [self.members.index(member) for member in members]
        before = self.sizes
        self._set_members(members)

        def moved(stacked: Tensor) -> Tensor:
            found = torch.zeros(len(members), self.sizes.total, device=self.device)
            for member, old, new in zip(members, stacked[rows], found, strict=True):
                pairs = zip(
                    before.pairs(member.fit.model, old),
                    self.sizes.pairs(member.fit.model, new),
                    strict=True,
                )
                for (_, view), (_, to) in pairs:
                    to.copy_(view)
            return found

        self.flat, self.average = moved(self.flat), moved(self.average)
        self.moments = [moved(moment) for moment in self.moments]
        self._parts = self._trained()
        return self

    def _trained(self) -> list[Tensor]:
        """Return the parts of the weights, for gradients."""
        return [part.detach().requires_grad_() for part in self.sizes.parts(self.flat)]

    def _release(self, member: Member) -> None:
        """Bring a member's own model, optimizer and average to where the group has trained it."""
        row, fit = self.members.index(member), member.fit
        assert isinstance(fit.steps, JoinedSteps), "the group is on a CPU"
        moments = []
        for moment in self.moments:  # in the order of the model's weights
            write_weights(fit.model, self.sizes, moment[row])
            moments.append(fit.steps.parts[0].clone())
        fit.steps.go_on_from(moments, self._done)
        write_weights(fit.model, self.sizes, self.flat[row])
        if fit.average is not None:
            write_weights(fit.average.model, self.sizes, self.average[row])
            fit.average.done = self._done

    def _set_members(self, members: Sequence[Member]) -> None:
        parameters = [member.parameters for member in members]
        self.members = list(members)
        self.sizes = Sizes.widest([member.sizes for member in members])
        self.stack = Stack(self.sizes, mean=parameters[0].pooling == "mean")
        self.shape = members[0].fit.model.shape
        self.batch_size = parameters[0].batch_size
        for windows in (self.train_windows, self.scored_windows):
            windows.narrow([member.fit for member in members])
        self._clips = self._each([p.gradient_clip for p in parameters])
        # L2 of Adam is added to the gradient, AdamW's decay shrinks the weights.
        self._l2 = self._each([p.weight_decay * (p.optimizer == "adam") for p in parameters])
        self._decays = self._each([p.weight_decay * (p.optimizer == "adamw") for p in parameters])
        steps = math.ceil(self.train_windows.n / self.batch_size)
        spans = [p.weight_averaging * steps for p in parameters]
        self._averages = any(spans)
        self._least = self._each([1 / (1 + span) for span in spans])  # 1 is the weights themselves
        self._has = bool(self._l2.any()), bool(self._decays.any())
        self._levels = torch.tensor(self.shape.quantiles, device=self.device)
        self._dropouts = self._each([p.dropout for p in parameters])
        self._drops = bool(self._dropouts.any())
        self._buffers: dict[int, list[Tensor]] = {}  # masks by the size of the batch
        self._noise_at: dict[int, list[Tensor]] = {}
        self._losses_of_epoch = torch.zeros(len(members), dtype=torch.float64, device=self.device)
        self._graphed: GraphedStep | None = None
        if on_gpu(self.device):
            self._graphed = GraphedStep(self._step_of_tensors, self.device)

    def _each(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, device=self.device).unsqueeze(1)  # (members, 1)

    def weights_of(self, member: int) -> Weights:
        """Return the weights that a member is scored with, under the names of its model."""
        model = self.members[member].fit.model
        write_weights(model, self.sizes, self._scored[member])
        return model.weights()

    @property
    def _scored(self) -> Tensor:
        return self.average if self._averages else self.flat

    def train_epoch(self) -> list[float]:
        """Train every member on every sample once; return their mean losses, before each step."""
        rates = self._each([member.learning_rate for member in self.members])
        n = self.train_windows.n
        orders = [
            torch.randperm(n, generator=m.fit.generators.shuffling, dtype=torch.int32)
            for m in self.members
        ]
        order = torch.stack(orders).to(self.device)  # (members, n)
        corrections = self._corrections(math.ceil(n / self.batch_size))
        self._losses_of_epoch.zero_()
        for samples, corrected in zip(
            torch.split(order, self.batch_size, dim=1), corrections, strict=True
        ):
            batch, size = self.train_windows.batch(samples), samples.shape[1]
            if self._graphed is None:
                self._step(batch, self._masks(size), rates, corrected)
                continue
            step = self._graphed if size == min(self.batch_size, n) else self._step_of_tensors
            read, base, spread = batch.read, batch.base, batch.spread
            noise = self._noise(size)
            step(read, base, spread, batch.targets, batch.weights, noise, rates, corrected)
        return [float(loss) for loss in (self._losses_of_epoch / n).tolist()]

    def _corrections(self, steps: int) -> tuple[Tensor, ...]:
        """Return the corrections of each of the next steps, (3,) each, see `_update`."""
        done = range(self._done + 1, self._done + steps + 1)
        self._done += steps
        of_mean, of_square = ([1 - beta**step for step in done] for beta in _BETAS)
        rows = [
            (-mean, math.sqrt(square), WARMUP / (WARMUP + step))
            for mean, square, step in zip(of_mean, of_square, done, strict=True)
        ]
        return torch.tensor(rows, device=self.device).unbind()

    def _step_of_tensors(
        self,
        read: Tensor,
        base: Tensor,
        spread: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        noise: Tensor | None,
        rates: Tensor,
        corrections: Tensor,
    ) -> None:
        """Take a step on a batch, as `_step`: with nothing but tensors, for a graph."""
        batch = Batch(read, base, spread, targets, weights)
        masks = [] if noise is None else self._masks_of(noise, len(read) // len(self.members))
        self._step(batch, masks, rates, corrections)

    def _step(self, batch: Batch, masks: Masks, rates: Tensor, corrections: Tensor) -> None:
        """Train on a batch of each member, and add the losses to those of the epoch.

        Args:
            batch: the windows of all members.
            masks: of dropout.
            rates: learning rates, (members, 1).
            corrections: of the step, (3,), see `_update`.
        """
        with torch.enable_grad():
            losses = self._losses(self._outputs(self._parts, batch, masks), batch)
            gradients = torch.autograd.grad(losses.sum(), self._parts)
        gradient = torch.cat([g.flatten(1) for g in gradients], dim=1)
        self._update(gradient, rates, corrections)
        size = len(batch.read) // len(self.members)
        self._losses_of_epoch.add_(losses.detach(), alpha=size)

    def _outputs(self, parts: Sequence[Tensor], batch: Batch, masks: Masks = ()) -> Tensor:
        """Return the outputs for a batch, (members * batch, horizon, targets[, quantiles])."""
        x = torch.unflatten(batch.read, 0, (len(self.members), -1))
        values = as_values(self.stack.forward(parts, x, masks).flatten(0, 1), self.shape)
        base, spread = batch.base, batch.spread
        if self.shape.quantiles:
            base, spread = base.unsqueeze(3), spread.unsqueeze(3)
        return torch.addcmul(base, values, spread)

    def _losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of each member, (members,), as the loss of a training alone."""
        targets, name = batch.targets, self.members[0].parameters.loss
        if self.shape.quantiles:
            above = targets.unsqueeze(3) - outputs
            losses = torch.maximum(self._levels * above, (self._levels - 1) * above)
        elif name == "mae":
            losses = (outputs - targets).abs()
        elif name == "huber":
            losses = functional.huber_loss(outputs, targets, reduction="none")
        else:
            losses = (outputs - targets).square()
        if (weights := batch.weights) is not None:
            losses = losses * weights.view(*weights.shape, *[1] * (losses.ndim - 2))
        return losses.view(len(self.members), -1).mean(dim=1)

    def _masks(self, batch: int) -> Masks:
        """Draw the masks for a batch, as the members' trainings alone do on a CPU."""
        if not self._drops:
            return []
        layers, steps = self.sizes.layers, self.train_windows.steps
        if (buffers := self._buffers.get(batch)) is None:
            n = len(self.members)
            sizes = [(steps, n, width, batch) for width in layers[:-1]]
            buffers = [torch.ones(s, device=self.device) for s in [*sizes, (n, layers[-1], batch)]]
            self._buffers[batch] = buffers
        for at, member in enumerate(self.members):
            if not (rate := member.parameters.dropout):
                continue
            widths, stacked = member.sizes.layers, len(member.fit.model.recurrent.stacks) == 1
            for layer, width in enumerate(widths[:-1]):
                noise = torch.empty(steps, batch, width, device=self.device)
                drawn = noise if stacked else noise.transpose(0, 1)  # in which order torch does it
                drawn.bernoulli_(1 - rate, generator=member.dropout).div_(1 - rate)
                buffers[layer][:, at, :width] = noise.transpose(1, 2)
            noise = torch.empty(batch, widths[-1], device=self.device)
            noise.bernoulli_(1 - rate, generator=member.dropout).div_(1 - rate)
            buffers[-1][at, : widths[-1]] = noise.T
        return buffers

    def _shapes(self, widths: Sequence[int], batch: int) -> list[tuple[int, ...]]:
        """Return the shapes of a member's masks: of each layer but the last, and for the head."""
        steps = self.train_windows.steps
        return [*((steps, width, batch) for width in widths[:-1]), (widths[-1], batch)]

    def _noise(self, batch: int) -> Tensor | None:
        """Draw uniform numbers for the masks of a batch, (members, numbers of the widest).

        A member draws as many as its own masks have, whatever the widths of the others.
        """
        if not self._drops:
            return None
        needed = [
            sum(math.prod(shape) for shape in self._shapes(member.sizes.layers, batch))
            for member in self.members
        ]
        noise = torch.ones(len(self.members), max(needed), device=self.device)  # 1 keeps a unit
        for row, member, n in zip(noise, self.members, needed, strict=True):
            if member.parameters.dropout:
                row[:n].uniform_(generator=member.dropout)
        return noise

    def _places(self, batch: int) -> list[Tensor]:
        """Return where in a member's noise each number of its masks is, (members, ...) per mask.

        Padding has place 0, as its outputs are 0.
        """
        if (found := self._noise_at.get(batch)) is None:
            n, kind = len(self.members), torch.int64
            shapes = self._shapes(self.sizes.layers, batch)
            found = [torch.zeros((n, *s), dtype=kind, device=self.device) for s in shapes]
            for row, member in enumerate(self.members):
                begin = 0
                own = self._shapes(member.sizes.layers, batch)
                for shape, places in zip(own, found, strict=True):
                    end = begin + math.prod(shape)
                    at = torch.arange(begin, end, device=self.device)
                    places[row, ..., : shape[-2], :] = at.view(shape)
                    begin = end
            self._noise_at[batch] = found
        return found

    def _masks_of(self, noise: Tensor, batch: int) -> Masks:
        """Make masks from noise; each has the distribution of those of the member's alone."""
        factors = (noise >= self._dropouts) / (1 - self._dropouts)
        masks = [
            factors.gather(1, places.flatten(1)).view(places.shape)
            for places in self._places(batch)
        ]
        return [*(mask.transpose(0, 1) for mask in masks[:-1]), masks[-1]]

    @torch.no_grad()
    def _update(self, gradient: Tensor, rates: Tensor, corrections: Tensor) -> None:
        """Clip each member's gradient, (members, total), and take a step of Adam or AdamW.

        Args:
            gradient: is used up.
            rates: learning rates, (members, 1).
            corrections: minus the divisor of the mean, the square root of that of the square, and
                the least share of the newest weights in their average.
        """
        minus_of_mean, of_square, least = corrections.unbind()
        norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient.div_((norms / self._clips).clamp_(min=1))
        has_l2, has_decay = self._has
        if has_l2:
            gradient.addcmul_(self.flat, self._l2)
        if has_decay:
            self.flat.mul_(1 - rates * self._decays)
        mean, square = self.moments
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        spread = square.sqrt().div_(of_square).add_(_EPSILON)
        self.flat.addcdiv_(mean * (rates / minus_of_mean), spread)
        if self._averages:
            self.average.lerp_(self.flat, torch.maximum(self._least, least))

    @torch.inference_mode()
    def evaluate(self) -> Score:
        """Return the scores of all members, in the order of `members`; metrics may be nan.

        Members predict together and are scored one by one, when the function is called. Where the
        predictions of all would be too large, each member predicts alone.
        """
        n, shape = self.scored_windows.n, self.shape
        numbers = n * shape.horizon * shape.targets * max(1, len(shape.quantiles))
        if len(self.members) * numbers > _PREDICTED[self.device.type]:
            return self._evaluate_alone
        parts = self.sizes.parts(self._scored)
        order = torch.arange(n, dtype=torch.int32).expand(len(self.members), -1)
        inputs = self.sizes.segment or self.sizes.inputs
        read = self.train_windows.steps * max(inputs, 4 * max(self.sizes.layers))  # of a window
        size = max(1, min(_BATCH, _NUMBERS[self.device.type] // (len(order) * read)))
        found, totals = [], torch.zeros(len(order), dtype=torch.float64, device=self.device)
        for samples in torch.split(order, size, dim=1):
            batch = self.scored_windows.batch(samples)
            outputs = self._outputs(parts, batch)
            totals.add_(self._losses(outputs, batch), alpha=samples.shape[1])
            found.append(torch.unflatten(outputs, 0, samples.shape))
        outputs = torch.cat(found, dim=1)  # (members, n, horizon, targets[, quantiles])
        losses = [float(loss) for loss in (totals / n).tolist()]

        def score_of(at: int) -> tuple[float, float]:
            if not math.isfinite(losses[at]):
                return losses[at], math.nan
            fit = self.members[at].fit
            values = in_units(outputs[at], fit.data, fit.scored)
            of = (fit.truth, values, fit.data, fit.scored, fit.scored_weights)
            return losses[at], score(fit.metric, *of)

        return score_of

    def _evaluate_alone(self, at: int) -> tuple[float, float]:
        fit = self.members[at].fit
        write_weights(fit.trained, self.sizes, self._scored[at])
        return fit.evaluate()
