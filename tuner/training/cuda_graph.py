"""A step of training as a CUDA graph: all of its kernels are launched at once.

A step of narrow layers is some hundred kernels that take less time than their launches. A graph
has them recorded once, with the memory that each reads and writes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from tuner.errors import one_line
from tuner.training.device import lacks_memory

_CALLS = 10  # before a capture, so that one pays where members end in every epoch; not measured
_SINCE = "2.13"  # of PyTorch: random numbers and memory are usable after a capture that failed

Replay = Callable[[], None]
"""Does again, on the current stream, what a captured call did."""


def captures(device: torch.device) -> bool:
    """Return whether steps on a device become graphs."""
    return device.type == "cuda" and torch.__version__ >= _SINCE


def capture(function: Callable[[], None], stream: torch.cuda.Stream | None) -> Replay:
    """Record the kernels of a function, without running them.

    Raises:
        RuntimeError: the function waits for the GPU, or does something else that has no graph.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            function()
    except RuntimeError as error:  # ending the capture fails as well, after what made it fail
        raise error.__context__ or error from None
    return graph.replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of captures: libraries keep workspaces for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class GraphedStep:
    """A function of tensors that runs on a GPU, from some call on as a CUDA graph.

    The graph reads anew its arguments and the tensors that the function keeps. Numbers, and the
    choice of these tensors, are those of the captured call. Where a capture fails, this process
    captures nothing any more: all calls go on kernel by kernel.

    Source: "CUDA Graphs" in the CUDA semantics of PyTorch's documentation.

    Args:
        function: of tensors, each of one shape and device in all calls; an argument that is None
            is None in all of them. It returns nothing: it writes to tensors that it keeps. It
            draws no random numbers, and never waits for the GPU.
        device: of the tensors. Only one of these may be used on a device at a time.
    """

    refused: str | None = None  # why captures fail in this process

    def __init__(self, function: Callable[..., None], device: torch.device) -> None:
        self._function = function
        self._stream = _stream(device) if device.type == "cuda" else None
        self._calls = 0
        self._arguments: list[Tensor | None] = []  # of the graph
        self._replay: Replay | None = None

    def __call__(self, *arguments: Tensor | None) -> None:
        """Call the function, on the current stream."""
        if self._replay is None and self._calls == _CALLS and GraphedStep.refused is None:
            self._capture(arguments)
        self._calls += 1
        if self._replay is not None:
            for own, given in zip(self._arguments, arguments, strict=True):
                if own is not None and given is not None:
                    own.copy_(given)
            self._replay()
        elif self._stream is not None and self._calls == _CALLS:
            self._warm_up(self._stream, arguments)
        else:
            self._function(*arguments)

    def _warm_up(self, stream: torch.cuda.Stream, arguments: tuple[Tensor | None, ...]) -> None:
        """Call the function on the stream of captures, where libraries then have workspaces."""
        current = torch.cuda.current_stream(stream.device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                self._function(*arguments)
        finally:
            current.wait_stream(stream)

    def _capture(self, arguments: tuple[Tensor | None, ...]) -> None:
        self._arguments = [None if given is None else given.clone() for given in arguments]
        try:
            self._replay = capture(lambda: self._function(*self._arguments), self._stream)
        except RuntimeError as error:
            self._arguments = []
            if lacks_memory(error):
                raise
            GraphedStep.refused = one_line(error)
            sys.stderr.write(f"no CUDA graph has the steps of groups: {one_line(error)}\n")
