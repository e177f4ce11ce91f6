"""Models of one kind stacked into one: weights (members, ...), products batched over members.

Weights of narrower members are padded with zeros to the widest one's. That is exact: a padded
unit has the gates of z = 0, so its cell state f c + i g = c / 2 + 0 and its output stay 0, and as
every weight from and to it is 0, so is every gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tuner.training.model import Model

aten = torch.ops.aten

Pairs = list[tuple[Tensor, Tensor]]
"""Parameters of a model, each with the view of the same shape of the stacked weights."""


@dataclass(frozen=True)
class Sizes:
    """Widths of a model, or the largest of several."""

    layers: tuple[int, ...]  # units of each recurrent layer
    inputs: int  # numbers that the first layer reads in a step, or a segment
    outputs: int  # numbers of the head
    segment: int  # inputs of the linear layer of segments; 0 without one

    @classmethod
    def of(cls, model: Model) -> Sizes:
        """Return the sizes of a model of LSTM layers and a linear head."""
        layers = [stack for stack in model.recurrent.stacks if isinstance(stack, nn.LSTM)]
        widths = [width for stack in layers for width in [stack.hidden_size] * stack.num_layers]
        read = 0 if model.segments is None else model.segments.linear.in_features
        return cls(tuple(widths), layers[0].input_size, model.last_layer.out_features, read)

    @classmethod
    def widest(cls, sizes: Sequence[Sizes]) -> Sizes:
        """Return sizes into which all of these fit."""
        layers = tuple(max(widths) for widths in zip(*(s.layers for s in sizes), strict=True))
        first = sizes[0]
        inputs = max(s.inputs for s in sizes)  # those of segments differ
        return cls(layers, inputs, first.outputs, first.segment)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the parts of a member's weights, in their order.

        Of segments (width, inputs) and (width,); of each recurrent layer (units + inputs + 2, 4 *
        units), rows for the hidden state, the inputs and the two biases; of the head (units,
        outputs) and (outputs,).
        """
        found: list[tuple[int, ...]] = []
        if self.segment:
            found += [(self.inputs, self.segment), (self.inputs,)]
        inputs = self.inputs
        for width in self.layers:
            found.append((width + inputs + 2, 4 * width))
            inputs = width
        return [*found, (inputs, self.outputs), (self.outputs,)]

    @property
    def total(self) -> int:
        """The number of weights of a member, with padding."""
        return sum(math.prod(shape) for shape in self.shapes)

    def parts(self, flat: Tensor) -> list[Tensor]:
        """View weights, (..., total), as parts, each (..., *shape)."""
        split = torch.split(flat, [math.prod(shape) for shape in self.shapes], dim=-1)
        return [
            torch.unflatten(part, -1, shape) for part, shape in zip(split, self.shapes, strict=True)
        ]

    def pairs(self, model: Model, flat: Tensor) -> Pairs:
        """Pair a member's trained parameters with views of its stacked weights, (total,)."""
        own, parts = Sizes.of(model), self.parts(flat)
        found: Pairs = []
        if model.segments is not None:
            weight, bias, *parts = parts
            linear = model.segments.linear
            found += [(linear.weight, weight[: own.inputs]), (linear.bias, bias[: own.inputs])]
        at, inputs = 0, own.inputs
        for stack in model.recurrent.stacks:
            for name in range(stack.num_layers):  # type: ignore[arg-type]
                width, padded = own.layers[at], self.layers[at]
                gates = torch.unflatten(parts[at], 1, (4, padded))[..., :width]  # (rows, 4, width)
                of_state, rest = gates[:width], gates[padded:]
                for kind, rows in (("hh", of_state), ("ih", rest[:inputs])):
                    weight = getattr(stack, f"weight_{kind}_l{name}").unflatten(0, (4, width))
                    found.append((weight, rows.permute(1, 2, 0)))
                for kind, row in (("ih", gates[-2]), ("hh", gates[-1])):
                    bias = getattr(stack, f"bias_{kind}_l{name}").unflatten(0, (4, width))
                    found.append((bias, row))
                at, inputs = at + 1, width
        weight, bias = parts[-2:]
        head = model.last_layer
        return [*found, (head.weight, weight[:inputs].T), (head.bias, bias)]


@torch.no_grad()
def stack_weights(models: Sequence[Model], sizes: Sizes, device: torch.device) -> Tensor:
    """Return the weights of the models, (members, total)."""
    flat = torch.zeros(len(models), sizes.total, device=device)
    for model, own in zip(models, flat, strict=True):
        for parameter, view in sizes.pairs(model, own):
            view.copy_(parameter)
    return flat


@torch.no_grad()
def write_weights(model: Model, sizes: Sizes, flat: Tensor) -> None:
    """Give a model its stacked weights, (total,)."""
    for parameter, view in sizes.pairs(model, flat):
        parameter.copy_(view)


class Workspace:
    """What a recurrent layer computes for a batch, kept for the gradient; reused by every batch.

    Args:
        steps: of the sequences.
        members: of the stack.
        batch: sequences of each member.
        units: of the layer.
        inputs: of the layer.
        keep: whether a gradient follows; otherwise all steps share the memory of one.
        device: of the tensors.
    """

    def __init__(
        self, steps: int, members: int, batch: int, units: int, inputs: int, *, keep: bool,
        device: torch.device,
    ) -> None:  # fmt: skip
        kept = steps if keep else 1

        def rows(n: int, width: int) -> Tensor:
            return torch.zeros(n, members, width, batch, device=device)

        self.steps, self.units = steps, units
        self.read = rows(steps + 1, units + inputs + 2)
        """Of each step the hidden state before it, its inputs, and twice 1 for the biases."""
        self.read[:, :, -2:] = 1
        self.gates = rows(kept, 4 * units).expand(steps, -1, -1, -1)
        self.cells = rows(steps + 1, units)
        """Twice the cell states; the row before a step's is the state that it begins with."""
        self.tanhs = rows(kept, units).expand(steps, -1, -1, -1)
        self.slopes = torch.empty_like(self.gates) if keep else self.gates
        self.double = torch.ones(4 * units, device=device)
        self.double[2 * units : 3 * units] = 2  # gate g
        self.minus_one = torch.full((), -1.0, device=device)


class StackedLSTM(torch.autograd.Function):
    """One LSTM layer of all members.

    Batches are the last axis, so that the four gates of a step are long runs of memory. tanh(x) is
    computed as 2 sigmoid(2 x) - 1, which is off by one unit in the last place of 1 and takes a
    fifth of the time on a CPU; all gates of a step are then one sigmoid. A step takes eight
    operations forwards and six backwards; benchmarks/batched.py measures them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, work: Workspace) -> tuple[Tensor, Tensor]:
        """Return the outputs of all steps, and of the last one.

        Args:
            ctx: of the gradient.
            x: (steps, members, inputs, batch).
            weights: (members, units + inputs + 2, 4 * units), gates in the order i, f, g, o.
            work: of these sizes; the outputs are views of it.

        Returns:
            (steps, members, units, batch), and (members, units, batch).
        """
        units = work.units
        work.read[:-1, :, units:-2] = x
        doubled = (weights * work.double).transpose(1, 2)
        minus_one = work.minus_one
        hidden = work.read[:, :, :units]
        i, f, g, o = (gate.unbind() for gate in torch.split(work.gates, units, dim=2))
        cells = work.cells.unbind()
        every = zip(
            work.read[:-1].unbind(), work.gates.unbind(), i, f, g, o, cells[:-1], cells[1:],
            work.tanhs.unbind(), hidden[1:].unbind(), strict=True,
        )  # fmt: skip
        for read, z, i_t, f_t, g_t, o_t, before, c, tanh_c, h in every:
            torch.bmm(doubled, read, out=z).sigmoid_()
            torch.add(minus_one, g_t, alpha=2, out=g_t)
            torch.mul(f_t, before, out=c).addcmul_(i_t, g_t, value=2)
            torch.sigmoid(c, out=tanh_c)
            torch.add(minus_one, tanh_c, alpha=2, out=tanh_c)
            torch.mul(o_t, tanh_c, out=h)
        ctx.work = work
        ctx.save_for_backward(weights)
        ctx.set_materialize_grads(False)
        return hidden[1:].view_as(hidden[1:]), hidden[-1].view_as(hidden[-1])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_all: Tensor | None, of_last: Tensor | None
    ) -> tuple[Tensor | None, Tensor, None]:
        """Map the gradients of the outputs to those of the inputs and weights."""
        work, (weights,) = ctx.work, ctx.saved_tensors
        units, steps = work.units, work.steps
        i, f, g, o = work.gates.split(units, dim=2)
        d_i, d_f, d_g, d_o = work.slopes.split(units, dim=2)
        # The factors of dc_t, for gate o of dh_t, in the gradient of each gate before its sigmoid
        # or tanh. The loop multiplies them in place.
        sigmoid_backward, tanh_backward = aten.sigmoid_backward, aten.tanh_backward
        sigmoid_backward.grad_input(g, i, grad_input=d_i)
        sigmoid_backward.grad_input(work.cells[:-1], f, grad_input=d_f)
        d_f.mul_(0.5)  # as cells are twice the states
        tanh_backward.grad_input(i, g, grad_input=d_g)
        sigmoid_backward.grad_input(work.tanhs, o, grad_input=d_o)
        h_to_c = tanh_backward(o, work.tanhs)  # factor of dh_t in dc_t

        dh = torch.zeros_like(h_to_c[0]) if of_last is None else of_last.contiguous()
        dc = torch.zeros_like(dh)
        to_state = weights[:, :units]
        ifg = work.slopes.unflatten(2, (4, units))[:, :, :3]
        each = [t.unbind() for t in (ifg, d_o, work.slopes, h_to_c, f)]
        for t, (ifg_t, d_o_t, dz, to_c, on) in reversed(list(enumerate(zip(*each, strict=True)))):
            if of_all is not None:
                dh = dh + of_all[t]
            dc.addcmul_(dh, to_c)
            ifg_t.mul_(dc.unsqueeze(1))
            d_o_t.mul_(dh)
            dc.mul_(on)
            if t:
                dh = torch.bmm(to_state, dz)

        def over_steps(rows: Tensor) -> Tensor:  # (members, width, steps * batch)
            return rows.permute(1, 2, 0, 3).flatten(2)

        dz_all = over_steps(work.slopes)
        d_weights = torch.bmm(over_steps(work.read[:-1]), dz_all.transpose(1, 2))
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = torch.bmm(weights[:, units:-2], dz_all)  # (members, inputs, steps * batch)
            d_x = torch.unflatten(d_x, 2, (steps, -1)).permute(2, 0, 1, 3)
        return d_x, d_weights, None


class Stack:
    """The models of all members: their weights side by side, and the forward pass.

    Args:
        sizes: of the widest members, in every layer.
        mean: whether the mean of all steps goes to the head, not the last one.
    """

    def __init__(self, sizes: Sizes, *, mean: bool) -> None:
        self.sizes, self.mean = sizes, mean
        self._works: dict[tuple[Any, ...], Workspace] = {}

    def forward(
        self, parts: Sequence[Tensor], x: Tensor, masks: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Return the outputs of the heads, (members, batch, outputs).

        Args:
            parts: of the weights, see `Sizes.shapes`, each with an axis of members in front.
            x: (members, batch, steps, inputs), or of segments.
            masks: factors of dropout; the outputs of each layer but the last have (steps, members,
                units, batch), those that the head reads (members, units, batch).
        """
        members, batch, steps, _ = x.shape
        keep = torch.is_grad_enabled()
        y = x.permute(2, 0, 3, 1)  # (steps, members, inputs, batch)
        if self.sizes.segment:
            weight, bias, *parts = parts
            rows = x.permute(0, 3, 2, 1).flatten(2)  # (members, inputs, steps * batch)
            y = functional.relu(torch.baddbmm(bias.unsqueeze(2), weight, rows))
            y = torch.unflatten(y, 2, (steps, batch)).permute(2, 0, 1, 3)
        *layers, weight, bias = parts
        inputs, last = self.sizes.inputs, y
        for at, (layer, width) in enumerate(zip(layers, self.sizes.layers, strict=True)):
            work = self._work(at, steps, members, batch, width, inputs, keep, x.device)
            y, last = StackedLSTM.apply(y, layer, work)  # type: ignore[no-untyped-call]
            if masks and at < len(layers) - 1 and (mask := masks[at]) is not None:
                y = y * mask
            inputs = width
        pooled = y.mean(dim=0) if self.mean else last  # (members, units, batch)
        if masks and (mask := masks[-1]) is not None:
            pooled = pooled * mask
        return torch.baddbmm(bias.unsqueeze(1), pooled.transpose(1, 2), weight)

    def _work(self, layer: int, *sizes: Any) -> Workspace:
        """Return the workspace of a layer for these sizes; a batch of other sizes has its own."""
        if (found := self._works.get(key := (layer, *sizes))) is None:
            steps, members, batch, units, inputs, keep, device = sizes
            found = Workspace(steps, members, batch, units, inputs, keep=keep, device=device)
            self._works[key] = found
        return found
