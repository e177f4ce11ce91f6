"""An ONNX graph, written operator by operator: names and constants see to themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

__all__ = ["Graph", "Operand", "Step"]

_OPSET = 17
_IR_VERSION = 8  # of the file: it came with that opset, and runtimes of today and 2022 read it

Operand = str | Tensor | np.ndarray
"""What an operator reads: a value by its name, or a constant; "" for an input that is left out."""


class Graph:
    """Operators in the order in which they run.

    The body of a loop is a graph of its own that sees the values of the one around it; names
    differ among all of them, and the constants stand in the outermost.
    """

    def __init__(self, around: Graph | None = None) -> None:
        self._outermost: Graph = self if around is None else around._outermost
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._n_names = 0
        self.time = ""
        """Of the body of a loop: which step it is, from 0, int64."""

    def op(self, kind: str, *inputs: Operand, **attributes: Any) -> str:
        """Add an operator of ONNX that puts out one value, and return that value's name."""
        return self.ops(1, kind, *inputs, **attributes)[0]

    def ops(self, n_outputs: int, kind: str, *inputs: Operand, **attributes: Any) -> list[str]:
        """Add an operator, and return the names of the values that it puts out."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        outputs = [self._name(kind.lower()) for _ in range(n_outputs)]
        self._nodes.append(helper.make_node(kind, names, outputs, outputs[0], **attributes))
        return outputs

    def constant(self, array: Tensor | np.ndarray) -> str:
        """Add a constant, and return its name."""
        if isinstance(array, Tensor):
            array = array.detach().cpu().numpy()
        name = self._name("constant")
        self._outermost._constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def loop(self, count: int, states: Sequence[str], step: Step) -> str:
        """Repeat a step; return what it puts out each time, one after another on a first axis.

        Args:
            count: how often.
            states: values that the first step begins with.
            step: adds itself to a graph.
        """
        body = Graph(around=self)
        time, go_on = self._name("time"), self._name("go_on")
        body.time = time
        before = [self._name("state") for _ in states]
        after, output = step(body, before)
        ends = [body.op("Identity", value) for value in (go_on, *after, output)]
        scalar = helper.make_tensor_value_info
        body_proto = helper.make_graph(
            body._nodes,
            self._name("body"),
            [
                scalar(time, TensorProto.INT64, []),
                scalar(go_on, TensorProto.BOOL, []),
                *map(_floats, before),
            ],
            [scalar(ends[0], TensorProto.BOOL, []), *map(_floats, ends[1:])],
        )
        steps = np.array(count, np.int64)
        return self.ops(len(states) + 1, "Loop", steps, "", *states, body=body_proto)[-1]

    def to_model(
        self,
        inputs: Mapping[str, tuple[int, Sequence[str | int]]],
        outputs: Mapping[str, tuple[str, Sequence[str | int]]],
    ) -> onnx.ModelProto:
        """Return the model.

        Args:
            inputs: by name, of what type and shape; an axis of any length has a name.
            outputs: by name, which value, of floats, and its shape.
        """
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name], name))
        graph = helper.make_graph(
            self._nodes,
            "model",
            [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
            [_floats(name, shape) for name, (_, shape) in outputs.items()],
            self._constants,
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)

    def _name(self, kind: str) -> str:
        self._outermost._n_names += 1
        return f"{kind}_{self._outermost._n_names}"


Step = Callable[[Graph, list[str]], tuple[Sequence[str], str]]
"""Adds one step of a loop to a graph: from its states to the next ones, and what it puts out."""


def _floats(name: str, shape: Sequence[str | int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
