"""A step of training as a CUDA graph: all of its kernels are launched at once.

A step of narrow layers is hundreds of kernels that take less time than their launches. A graph
has them recorded once, with the memory that each reads and writes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from tuner.errors import one_line
from tuner.training.device import lacks_memory

_CALLS_BEFORE = 10  # a capture, so that it pays where members end in every epoch; not measured
_SINCE = "2.13"  # of PyTorch: random numbers and memory are usable after a capture that failed

Replay = Callable[[], None]
"""Does again, on the current stream, what a captured call did."""


def on_gpu(device: torch.device) -> bool:
    """Return whether steps on a device are launched as kernels, and may become graphs."""
    return device.type == "cuda"


def capture(function: Callable[[], None], stream: torch.cuda.Stream) -> Replay:
    """Record the kernels of a function, without running them.

    Raises:
        RuntimeError: the function waits for the GPU, or does something else that has no graph.
    """
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(stream.device)
    first: BaseException | None = None
    try:
        with torch.cuda.graph(graph, stream=stream):
            try:
                function()
            except BaseException as error:
                first = error
                raise
    except RuntimeError as error:
        # The end of a capture fails as well, after what made it fail, and leaves its stream on.
        raise first or error from None
    finally:
        torch.cuda.set_stream(current)
    return graph.replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of captures: libraries keep workspaces for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class GraphedStep:
    """A function of tensors that runs on a GPU, from some call on as a CUDA graph.

    The graph reads anew its arguments and the tensors that the function keeps. Numbers, and the
    choice of these tensors, are those of the captured call. Where a capture fails, or PyTorch is
    older than 2.13, calls go on kernel by kernel.

    Source: "CUDA Graphs" in the CUDA semantics of PyTorch's documentation.

    Args:
        function: of tensors, each of one shape and device in all calls; an argument that is None
            is None in all of them. It returns nothing: it writes to tensors that it keeps. It
            draws no random numbers, and never waits for the GPU.
        device: of the tensors. Only one of these may be used on a device at a time.
    """

    refused: str | None = None
    """Why a capture failed in this process, which then tries no other."""

    def __init__(self, function: Callable[..., None], device: torch.device) -> None:
        self._function = function
        self._stream = _stream(device)
        self._calls = 0
        self._arguments: list[Tensor | None] = []  # of the graph
        self._replay: Replay | None = None

    def __call__(self, *arguments: Tensor | None) -> None:
        """Call the function, on the current stream."""
        if self._calls == _CALLS_BEFORE and self.refused is None and torch.__version__ >= _SINCE:
            self._capture(arguments)
        self._calls += 1
        if self._replay is not None:
            for own, given in zip(self._arguments, arguments, strict=True):
                if own is not None and given is not None:
                    own.copy_(given)
            self._replay()
        elif self._calls == _CALLS_BEFORE:
            self._warm_up(arguments)
        else:
            self._function(*arguments)

    def _warm_up(self, arguments: tuple[Tensor | None, ...]) -> None:
        """Call the function on the stream of captures, where libraries then have workspaces."""
        stream, current = self._stream, torch.cuda.current_stream(self._stream.device)
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
            if not lacks_memory(error):  # which the next group may have
                GraphedStep.refused = one_line(error)
