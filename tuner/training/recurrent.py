"""Recurrent layers of every cell, stacked, on padded sequences; and the decoders made of them."""

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

from tuner.data import Shape
from tuner.experiment.hyperparameters import CELLS, Hyperparameters
from tuner.training.layers import as_values, middle, numbers_per_step, reverse
from tuner.training.user_models import UserLayer
from tuner.user_code import is_reference

State = tuple[Tensor, ...]
"""What a cell keeps between two steps: its hidden state and, of an LSTM, its cell state."""

aten = torch.ops.aten


class PeepholeLSTM(nn.Module):
    """One layer of the LSTM of Gers & Schmidhuber (2000), "Recurrent Nets that Time and Count".

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)        (1)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)        (2)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)                           (3)
        c_t = f_t * c_{t-1} + i_t * g_t                                   (4)
        o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)            (5)
        h_t = o_t * tanh(c_t)                                             (6)

    Its parameters have the names, shapes and first values of those of `nn.LSTM`. The peepholes p
    are one more: `weight_peephole`, (directions, 3, units), of the gates i, f, o. With peepholes of
    0 it is `nn.LSTM`.
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
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return the outputs and the last state of sequences, as `read` does."""
        batch = len(x)
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
        # Padded steps come after the real ones and cannot change them: no mask in the loop.
        final: State
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
    """The loop over the steps, of all directions at once.

    Autograd would record every small operation of every step. The backward pass here has five
    operations a step: all that does not depend on later steps is computed for all steps at once, as
    are the gradients of the weights. benchmarks/training.py measures it.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, recurrent: Tensor, peepholes: Tensor, h: Tensor, c: Tensor,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Map projected inputs to all h and all c, (steps, directions, batch, units) each.

        Inputs are (steps, directions, batch, 4 * units), gates in the order i, f, g, o; U is
        (directions, 4 * units, units), p (directions, 3, units), the first h and c (directions,
        batch, units). Unless `backward` may follow (`keep`), all steps share the memory of one.
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

        # The factors of dc_t, for gate o of dh_t, in the gradient of each gate before its sigmoid
        # or tanh. The loop multiplies them in place.
        dz = torch.empty_like(gates)
        d_i, d_f, d_g, d_o = dz.chunk(4, dim=-1)
        sigmoid_backward, tanh_backward = aten.sigmoid_backward, aten.tanh_backward
        sigmoid_backward.grad_input(g, i, grad_input=d_i)
        sigmoid_backward.grad_input(cs[:-1], f, grad_input=d_f)
        tanh_backward.grad_input(i, g, grad_input=d_g)
        sigmoid_backward.grad_input(tanhs, o, grad_input=d_o)
        h_to_c = tanh_backward(o, tanhs).addcmul_(d_o, p_o)  # factor of dh_t in dc_t
        c_to_c = torch.addcmul(f, d_i, p_i).addcmul_(d_f, p_f)  # factor of dc_t in dc_{t-1}

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


def make_layers(
    parameters: Hyperparameters, inputs: int, width: int, *, n_layers: int = 1, bidirectional: bool
) -> nn.Module:
    """Return recurrent layers of the parameters' cell, all of one width, for `read`."""
    if is_reference(parameters.cell):
        assert n_layers == 1, "a user's layer is a module of its own"
        return UserLayer(parameters, inputs, width, bidirectional=bidirectional)
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


def _projection(parameters: Hyperparameters) -> int:
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
        lengths: numbers of real steps, (batch,), on the CPU; all by default.

    Returns:
        The outputs of the last layer, (batch, steps, width), undefined at padded steps; and the
        states after the last real step, backwards after the first, shaped like `state`.
    """
    if not isinstance(layers, nn.RNNBase):
        outputs, final = layers(x, state, lengths)
        return outputs, final
    if lengths is None and isinstance(layers, nn.LSTM) and not layers.proj_size:
        return _lstm(layers, x, state)
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


def _lstm(layers: nn.LSTM, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Run an LSTM as its module does, without the module's checks, a third of the time."""
    if state is None:
        rows = layers.num_layers * (2 if layers.bidirectional else 1)
        zeros = x.new_zeros(rows, len(x), layers.hidden_size)
        state = (zeros, zeros)
    weights: list[Tensor] = [weight for layer in layers.all_weights for weight in layer]
    options = layers.bias, layers.num_layers, layers.dropout, layers.training
    outputs, h, c = torch.lstm(x, state, weights, *options, layers.bidirectional, True)
    return outputs, (h, c)


class Recurrent(nn.Module):
    """All recurrent layers, one after another, with dropout between them.

    Layers of one width are one module of torch, which is faster than a module each.
    """

    def __init__(self, parameters: Hyperparameters, inputs: int) -> None:
        super().__init__()
        both = parameters.bidirectional
        self.directions = 2 if both else 1
        project, cell = _projection(parameters), CELLS.get(parameters.cell)
        widths = parameters.widths
        self.widest = max(inputs, self.directions * max(widths))
        """The largest number of values of a step, in the input or a layer."""
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
        """Outputs of a step."""
        self.state_sizes = [self.width]
        """Sizes of the parts of the last layer's state."""
        if cell is not None and cell.n_states == 2:
            self.state_sizes.append(self.directions * widths[-1])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Return the outputs and the last state of sequences, (batch, steps, inputs), as `read`.

        The state is of the last layer alone, each (batch, size), both directions side by side.
        """
        state: State = ()
        for i, stack in enumerate(self.stacks):
            x, state = read(stack, x if i == 0 else self.dropout(x), lengths=lengths)
        # (layers * directions, batch, units) -> (batch, directions * units) of the last layer
        if self.directions == 1:
            return x, tuple(s[-1] for s in state)
        return x, tuple(torch.cat((s[-2], s[-1]), dim=1) for s in state)


class Decoder(nn.Module):
    """A layer of the encoder's cell and last width, and a linear head.

    It begins with the encoder's state. A linear bridge maps parts of another size, as the encoder
    may be bidirectional and the decoder is not. A decoder of forecasts maps that state, each
    (batch, size), and known future values, (batch, horizon, known columns), to (batch, horizon,
    targets[, quantiles]).

    Args:
        parameters: of the model.
        shape: of the data.
        state_sizes: of the parts of the encoder's state.
        inputs: numbers that the layer reads in a step.
        steps: of the horizon that an output of the head has.
    """

    def __init__(
        self,
        parameters: Hyperparameters,
        shape: Shape,
        state_sizes: list[int],
        *,
        inputs: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.shape, self.steps = shape, steps
        units = parameters.widths[-1]
        hidden = _projection(parameters) or units
        self.sizes = (hidden, units)[: len(state_sizes)]
        """Sizes of the parts of the layer's state."""
        self.layer = make_layers(parameters, inputs, units, bidirectional=False)
        self.bridges = nn.ModuleList(
            nn.Identity() if size == own else nn.Linear(size, own)
            for size, own in zip(state_sizes, self.sizes, strict=True)
        )
        self.dropout = nn.Dropout(parameters.dropout)
        self.head = nn.Linear(hidden, steps * numbers_per_step(shape))

    def first(self, state: State) -> State:
        """Bring the encoder's state, each (batch, size), to the layer's, each (batch, units)."""
        return tuple(bridge(s) for bridge, s in zip(self.bridges, state, strict=True))


class Recursive(Decoder):
    """Forecasts each step from its forecast of the step before and known values of the step.

    Training does the same: it reads no true targets.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        inputs = shape.targets + len(shape.known_columns)
        super().__init__(parameters, shape, state_sizes, inputs=inputs, steps=1)
        self.begin = nn.Parameter(torch.zeros(shape.targets))
        """Read in place of a forecast before the first step."""

    def forward(self, state: State, coming: Tensor | None = None) -> Tensor:
        state = tuple(s.unsqueeze(0) for s in self.first(state))  # (1, batch, units)
        x = self.begin.expand(state[0].shape[1], 1, -1)  # (batch, 1, targets)
        steps = []
        for k in range(self.shape.horizon):
            if coming is not None:
                x = torch.cat((x, coming[:, k : k + 1]), dim=2)
            outputs, state = read(self.layer, x, state)
            values = as_values(self.head(self.dropout(outputs[:, 0])), self.shape)
            steps.append(values)  # (batch, 1, targets[, quantiles])
            x = middle(values, self.shape)
        return torch.cat(steps, dim=1)


class InSegments(Decoder):
    """Forecasts the horizon in pieces of `segment` rows, each in one step, all in parallel.

    The parallel decoding of Lin et al. (2023), "SegRNN", section 4.3: every piece begins with the
    encoder's state, and reads a learned embedding of its position. The last piece is cut at the end
    of the horizon. A linear layer adds known values of a piece's rows to its embedding. Unlike in
    SegRNN the decoder has weights of its own, as the encoder may be stacked and bidirectional.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        units, length = parameters.widths[-1], parameters.segment
        super().__init__(parameters, shape, state_sizes, inputs=units, steps=length)
        self.begin = nn.Parameter(torch.randn(-(-shape.horizon // length), units))
        """The embedding of each piece, (pieces, units)."""
        self.known: nn.Linear | None = None
        if shape.ahead:
            self.known = nn.Linear(length * len(shape.known_columns), units, bias=False)

    def forward(self, state: State, coming: Tensor | None = None) -> Tensor:
        pieces, batch = len(self.begin), len(state[0])
        # (batch, units) -> (1, batch * pieces, units), the pieces of a sample side by side
        state = tuple(
            s.unsqueeze(1).expand(-1, pieces, -1).flatten(0, 1).unsqueeze(0)
            for s in self.first(state)
        )
        x = self.begin.expand(batch, -1, -1)  # (batch, pieces, units)
        if self.known is not None and coming is not None:
            behind = pieces * self.steps - coming.shape[1]  # of the last piece
            rows = functional.pad(coming, (0, 0, 0, behind))
            x = x + self.known(rows.reshape(batch, pieces, -1))
        x = x.reshape(batch * pieces, 1, -1)
        outputs, _ = read(self.layer, x, state)
        numbers = self.head(self.dropout(outputs[:, 0])).view(batch, -1)
        return as_values(numbers, self.shape)[:, : self.shape.horizon]


class Translator(Decoder):
    """Reads the tokens of a translation so far, and returns logits of the token after each.

    In training it reads the true tokens (teacher forcing; Sutskever et al. 2014, "Sequence to
    Sequence Learning with Neural Networks").
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        size = parameters.embedding_size
        super().__init__(parameters, shape, state_sizes, inputs=size, steps=1)
        self.embedding = nn.Embedding(shape.classes, size, padding_idx=0)
        self.head = nn.Linear(self.sizes[0], shape.classes)

    def forward(self, state: State, prefix: Tensor | None = None) -> Tensor:
        """Map the state and tokens, (batch, steps), the begin first, to (batch, steps, tokens)."""
        assert prefix is not None, "it has the begin token"
        first = tuple(s.unsqueeze(0) for s in self.first(state))
        outputs, _ = read(self.layer, self.embedding(prefix), first)
        logits: Tensor = self.head(self.dropout(outputs))
        return logits
