"""A step of training as a CUDA graph: all of its kernels are launched at once.

A step of narrow layers is some hundred kernels that take less time than their launches. A graph
has them recorded once, with the memory that each reads and writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from tuner.errors import one_line
from tuner.training.device import lacks_memory

_WARM_UP = 3  # calls before the capture, as PyTorch's notes on CUDA graphs advise

Replay = Callable[[], None]
"""Does again, on the current stream, what a captured call did."""


class CaptureWarning(RuntimeWarning):
    """A function cannot be captured; it goes on kernel by kernel."""


def captures(device: torch.device) -> bool:
    """Return whether steps on a device become graphs."""
    return device.type == "cuda"


def capture(function: Callable[[], None], stream: torch.cuda.Stream | None) -> Replay:
    """Record the kernels of a function, without running them.

    Raises:
        RuntimeError: the function waits for the GPU, or does something else that has no graph.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()
    return graph.replay


class GraphedStep:
    """A function that runs on a GPU, from some call on as a CUDA graph.

    Arguments are copied to where those of the captured call lie. Whatever else the function reads
    is what it was at that call, except for the contents of tensors that it also had before.

    Source: "CUDA Graphs" in the CUDA semantics of PyTorch's documentation.

    Args:
        function: of tensors, each of one shape and device in all calls; an argument that is None
            is None in all of them. It returns nothing: it writes to tensors that it keeps. It
            draws no random numbers, and never waits for the GPU.
        device: of the tensors.
    """

    def __init__(self, function: Callable[..., None], device: torch.device) -> None:
        self._function = function
        # Libraries allocate workspaces for each stream, and must have done so before a capture.
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._calls = 0
        self._arguments: list[Tensor | None] = []  # of the graph
        self._replay: Replay | None = None

    def __call__(self, *arguments: Tensor | None) -> None:
        """Call the function; the current stream goes on after it.

        Warns:
            CaptureWarning: it cannot be captured; said once.
        """
        if self._stream is None:
            self._run(arguments)
            return
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._run(arguments)
        current.wait_stream(self._stream)

    def _run(self, arguments: tuple[Tensor | None, ...]) -> None:
        if self._calls == _WARM_UP:
            self._capture(arguments)
        self._calls += 1
        if self._replay is None:
            self._function(*arguments)
            return
        for own, given in zip(self._arguments, arguments, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self._replay()

    def _capture(self, arguments: tuple[Tensor | None, ...]) -> None:
        self._arguments = [None if given is None else given.clone() for given in arguments]
        try:
            self._replay = capture(lambda: self._function(*self._arguments), self._stream)
        except RuntimeError as error:
            if lacks_memory(error):
                raise
            why = f"steps are launched kernel by kernel: no CUDA graph has them ({one_line(error)})"
            warnings.warn(why, CaptureWarning, stacklevel=1)
