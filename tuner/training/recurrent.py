"""Recurrent layers: LSTM, GRU, RNN and peephole LSTM, stacked, on padded sequences."""

from __future__ import annotations

import math
import warnings
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tuner.experiment.hyperparameters import CELLS, Hyperparameters
from tuner.training.layers import reverse
from tuner.training.user_models import OwnLayer
from tuner.user_code import is_reference

__all__ = ["PeepholeLSTM", "Recurrent", "State", "make_layers", "projection_of", "read"]

aten = torch.ops.aten


class PeepholeLSTM(nn.Module):
    """One layer of the LSTM of Gers & Schmidhuber (2000), "Recurrent Nets that Time and Count".

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)        (1)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)        (2)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)                           (3)
        c_t = f_t * c_{t-1} + i_t * g_t                                   (4)
        o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)            (5)
        h_t = o_t * tanh(c_t)                                             (6)

    Parameters are named, shaped and first drawn as those of `nn.LSTM`, whose weights it takes;
    those that it has more, the peepholes p, are `weight_peephole`, (directions, 3, units) of the
    gates i, f, o. With peepholes of 0 it is `nn.LSTM`.
    """

    def __init__(
        self, inputs: int, units: int, *, bias: bool = True, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.units, self.bias = units, bias
        self.directions = ["", "_reverse"] if bidirectional else [""]
        for direction in self.directions:
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (4 * units, inputs),
                "weight_hh": (4 * units, units),
            }
            if bias:
                shapes |= {"bias_ih": (4 * units,), "bias_hh": (4 * units,)}
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l0{direction}", nn.Parameter(torch.empty(shape)))
        self.weight_peephole = nn.Parameter(torch.empty(len(self.directions), 3, units))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(units), 1 / math.sqrt(units))

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, Tensor] | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read sequences from a state, zeros by default.

        Args:
            x: (batch, steps, inputs).
            state: h and c before the first step, each (directions, batch, units).
            lengths: (batch,), how many steps of each sequence are real; all by default.

        Returns:
            What it puts out, (batch, steps, directions * units), anything where x pads; and the
            states after the last real step, backwards after the first, (directions, batch, units).
        """
        batch, steps, _ = x.shape
        projected = self._project(x, lengths)
        zeros = projected.new_zeros(len(self.directions), batch, self.units)
        recurrent = torch.stack([getattr(self, f"weight_hh_l0{d}") for d in self.directions])
        # No product in half precision inside the loop: errors would add up over the steps.
        with torch.autocast(x.device.type, enabled=False):
            h, c = _Recurrence.apply(  # type: ignore[no-untyped-call]
                projected.to(recurrent.dtype),
                recurrent,
                self.weight_peephole,
                *(s.to(recurrent.dtype) for s in state or (zeros, zeros)),
                torch.is_grad_enabled(),
            )  # each (steps, directions, batch, units)
        # Steps that pad come after the real ones and cannot change them: no mask in the loop.
        if lengths is None:
            final = (h[-1], c[-1])
        else:
            last = (lengths - 1).to(x.device), torch.arange(batch, device=x.device)
            final = tuple(s[last[0], :, last[1]].transpose(0, 1) for s in (h, c))
        outputs = [h[:, 0].transpose(0, 1)]
        if len(self.directions) == 2:
            outputs.append(reverse(h[:, 1].transpose(0, 1), lengths))
        return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0], final

    def _project(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Return W x + b of all gates and steps at once, (steps, directions, batch, 4 * units)."""
        parts = []
        for d in self.directions:
            bias = None
            if self.bias:
                bias = getattr(self, f"bias_ih_l0{d}") + getattr(self, f"bias_hh_l0{d}")
            read = (reverse(x, lengths) if d else x).transpose(0, 1)  # (steps, batch, inputs)
            parts.append(functional.linear(read, getattr(self, f"weight_ih_l0{d}"), bias))
        return torch.stack(parts, dim=1) if len(parts) > 1 else parts[0].unsqueeze(1)


class _Recurrence(torch.autograd.Function):
    """The loop over the steps. All directions run in it side by side.

    Written by hand, because autograd would record every small operation of every step. Backwards
    a step has but five: what does not depend on later steps is computed for all steps at once,
    and so are the gradients of the weights. See benchmarks/training.py for what it costs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        recurrent: Tensor,
        peepholes: Tensor,
        h: Tensor,
        c: Tensor,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """Map projected inputs to all h and all c, (steps, directions, batch, units) each.

        Args:
            ctx: keeps what `backward` needs.
            projected: (steps, directions, batch, 4 * units), gates in the order i, f, g, o.
            recurrent: U, (directions, 4 * units, units).
            peepholes: p of the gates i, f, o, (directions, 3, units).
            h: before the first step, (directions, batch, units).
            c: the same.
            keep: whether `backward` may follow; else all steps share the memory of one.
        """
        n_steps, *rest, _ = projected.shape
        units = h.shape[-1]
        kept = n_steps if keep else 1
        gates = projected.new_empty(kept, *projected.shape[1:]).expand_as(projected)
        hs, cs = (projected.new_empty(n_steps + 1, *rest, units) for _ in range(2))
        hs[0], cs[0] = h, c  # the row before a step's is the state that it begins with
        tanhs = cs.new_empty(kept, *rest, units).expand(n_steps, *rest, units)
        p_if, p_o = peepholes[:, None, :2], peepholes[:, None, 2]  # the same for the whole batch
        u = recurrent.transpose(1, 2)  # (directions, units, 4 * units)
        gate = gates.view(n_steps, *rest, 4, units)
        (h, *h_all), (c, *c_all) = hs.unbind(), cs.unbind()
        if_all = gate[..., :2, :].unbind()
        by_step = (t.unbind() for t in (projected, gates, *gate.unbind(-2), tanhs))
        for h_next, c_next, i_and_f, x, z, i, f, g, o, tanh_c in zip(
            h_all, c_all, if_all, *by_step, strict=True
        ):
            torch.baddbmm(x, h, u, out=z)
            i_and_f.addcmul_(c.unsqueeze(2), p_if).sigmoid_()  # eq. 1, 2
            g.tanh_()  # eq. 3
            torch.mul(f, c, out=c_next).addcmul_(i, g)  # eq. 4
            o.addcmul_(c_next, p_o).sigmoid_()  # eq. 5
            torch.mul(o, torch.tanh(c_next, out=tanh_c), out=h_next)  # eq. 6
            h, c = h_next, c_next
        ctx.save_for_backward(gates, hs, cs, tanhs, recurrent, peepholes)
        ctx.set_materialize_grads(False)
        return hs[1:], cs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Map the gradients of all h and all c to those of forward's five tensors."""
        gates, hs, cs, tanhs, u, peepholes = ctx.saved_tensors
        grad_h, grad_c = (None if g is None else g.unbind() for g in grads)
        i, f, g, o = gates.chunk(4, dim=-1)  # (steps, directions, batch, units)
        p_i, p_f, p_o = peepholes.unsqueeze(2).unbind(1)  # (directions, 1, units)

        # Of every gate's sum before the sigmoid or tanh: what dc_t, of o what dh_t, is multiplied
        # with to become its gradient. The loop does so in place.
        dz = torch.empty_like(gates)
        d_i, d_f, d_g, d_o = dz.chunk(4, dim=-1)
        sigmoid_backward, tanh_backward = aten.sigmoid_backward, aten.tanh_backward
        sigmoid_backward.grad_input(g, i, grad_input=d_i)
        sigmoid_backward.grad_input(cs[:-1], f, grad_input=d_f)
        tanh_backward.grad_input(i, g, grad_input=d_g)
        sigmoid_backward.grad_input(tanhs, o, grad_input=d_o)
        h_to_c = tanh_backward(o, tanhs).addcmul_(d_o, p_o)  # what dh_t adds to dc_t
        c_to_c = torch.addcmul(f, d_i, p_i).addcmul_(d_f, p_f)  # what of dc_t goes on to dc_{t-1}

        dh, dc = torch.zeros_like(hs[0]), torch.zeros_like(cs[0])
        ifg_all = dz.view(*hs[1:].shape[:-1], 4, -1)[..., :3, :].unbind()
        steps = [ifg_all, *(t.unbind() for t in (d_o, dz, h_to_c, c_to_c))]
        for t, (ifg, d_o_t, dz_t, to_c, on) in reversed(list(enumerate(zip(*steps, strict=True)))):
            if grad_h is not None:
                dh = dh + grad_h[t]
            if grad_c is not None:
                dc = dc + grad_c[t]
            dc = torch.addcmul(dc, dh, to_c)
            ifg.mul_(dc.unsqueeze(2))
            d_o_t.mul_(dh)
            dc = dc * on
            dh = torch.bmm(dz_t, u)

        d_u = [dz[:, d].flatten(0, 1).T @ hs[:-1, d].flatten(0, 1) for d in range(len(u))]
        seen = ((d_i, cs[:-1]), (d_f, cs[:-1]), (d_o, cs[1:]))
        d_p = torch.stack([(d * c).sum(dim=(0, 2)) for d, c in seen], dim=1)
        return dz, torch.stack(d_u), d_p, dh, dc, None


State = tuple[Tensor, ...]

"""What a cell holds between two steps: its hidden state and, of an LSTM, its cell state."""


def make_layers(
    parameters: Hyperparameters, inputs: int, width: int, *, n_layers: int = 1, bidirectional: bool
) -> nn.Module:
    """Return recurrent layers of the parameters' cell, all of one width, for `read`."""
    if is_reference(parameters.cell):
        assert n_layers == 1, "a layer of one's own is a module of its own"
        return OwnLayer(parameters, inputs, width, bidirectional=bidirectional)
    cell = CELLS[parameters.cell]
    options: dict[str, Any] = {"bias": parameters.bias, "bidirectional": bidirectional}
    if cell.stacks:
        options |= {"num_layers": n_layers, "batch_first": True}
        # Torch drops between its layers, and warns where there is only one.
        options["dropout"] = parameters.dropout if n_layers > 1 else 0.0
    else:
        assert n_layers == 1, "each layer is a module of its own"
    if cell.projects:
        options["proj_size"] = parameters.proj_size
    if cell.nonlinear:
        options["nonlinearity"] = parameters.nonlinearity
    layers: nn.Module = resolve_name(cell.module)(inputs, width, **options)
    return layers


def projection_of(parameters: Hyperparameters) -> int:
    """Return the units that the hidden state is projected to; 0 for none."""
    cell = CELLS.get(parameters.cell)
    return parameters.proj_size if cell is not None and cell.projects else 0


def read(
    layers: nn.Module, x: Tensor, state: State | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, State]:
    """Run layers over sequences.

    Args:
        layers: from `make_layers`.
        x: (batch, steps, inputs).
        state: before the first step, each (layers * directions, batch, size); zeros by default.
        lengths: (batch,), on the CPU: how many steps of each sequence are real; all by default.

    Returns:
        What the last layer puts out, (batch, steps, width), anything where x pads; and the
        states after the last real step, backwards after the first, shaped like `state`.
    """
    if isinstance(layers, OwnLayer):
        assert state is None, "it begins with no state"
        return layers(x, lengths)  # type: ignore[no-any-return]
    if isinstance(layers, PeepholeLSTM):
        outputs, final = layers(x, state, lengths)
        return outputs, final
    first = state[0] if state is not None and len(state) == 1 else state
    packed: Tensor | PackedSequence = x
    if lengths is not None:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    if layers.proj_size:
        with warnings.catch_warnings():  # torch warns that its fastest kernel cannot do that
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported")
            outputs, final = layers(packed, first)
    else:
        outputs, final = layers(packed, first)
    if lengths is not None:
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    return outputs, final if isinstance(final, tuple) else (final,)


class Recurrent(nn.Module):
    """All recurrent layers, one after another, with dropout between them.

    Layers of one width are one module of torch, which is faster than a module each.
    """

    def __init__(self, parameters: Hyperparameters, inputs: int) -> None:
        super().__init__()
        both = parameters.bidirectional
        self.directions = 2 if both else 1
        project, cell = projection_of(parameters), CELLS.get(parameters.cell)
        widths = parameters.widths
        self.widest = max(inputs, self.directions * max(widths))
        """The most numbers that a step is, read or in a layer."""
        if cell is not None and cell.stacks and len(set(widths)) == 1:
            stacks = [(widths[0], len(widths))]
        else:
            stacks = [(width, 1) for width in widths]
        self.stacks = nn.ModuleList()
        for width, n_layers in stacks:
            stack = make_layers(parameters, inputs, width, n_layers=n_layers, bidirectional=both)
            self.stacks.append(stack)
            inputs = self.directions * (project or width)
        self.dropout = nn.Dropout(parameters.dropout)
        self.width = inputs
        """What comes out of a step."""
        self.state_sizes = [self.width]
        """What each part of the last layer's state holds."""
        if cell is not None and cell.n_states == 2:
            self.state_sizes.append(self.directions * widths[-1])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read (batch, steps, inputs), of which (batch,) steps are real, all by default.

        Returns:
            What the last layer puts out, (batch, steps, width), anything where x pads; and its
            last state, each (batch, size): forwards after the last real step, backwards after
            the first, side by side.
        """
        state: State = ()
        for i, stack in enumerate(self.stacks):
            x, state = read(stack, x if i == 0 else self.dropout(x), lengths=lengths)
        # (layers * directions, batch, units) -> (batch, directions * units) of the last layer
        if self.directions == 1:
            return x, tuple(s[-1] for s in state)
        return x, tuple(torch.cat((s[-2], s[-1]), dim=1) for s in state)
