"""Devices, memory and seeds of trainings, and their error."""

from __future__ import annotations

import functools
import gc
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tuner.errors import TunerError, one_line


class TrainingError(TunerError):
    """A job fails; its text is the reason in the outcome."""


def reason_of(error: Exception) -> str:
    """Return the reason in the outcome of a job that fails with an error."""
    kind = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
    return kind + one_line(error)


def lacks_memory(error: Exception) -> bool:
    """Return whether an error says that memory could not be had; torch has no class for a CPU's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def pick_device(name: str) -> torch.device:
    """Return the device of a job; auto is the GPU if there is one, otherwise the CPU.

    Raises:
        TrainingError: there is no CUDA GPU for cuda.
    """
    if name == "cuda" and not torch.cuda.is_available():
        rule, remedy = "torch finds no CUDA GPU on this machine", "set device to auto or cpu"
        raise TrainingError(rule, key="device: cuda", remedy=remedy)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


@functools.cache
def describe_device(device: torch.device) -> str:
    """Return a description of a device; results are equal to the last digit on equal ones.

    Of a GPU its name; of a CPU the architecture, the vector instructions that torch uses, and the
    model, as libraries choose matrix algorithms by its caches.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {instructions} {_cpu_model()}".strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [value for key, _, value in (x.partition(":") for x in lines) if "model name" in key]
    return " ".join(names[0].split()) if names else ""


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return `array` as a tensor; on the CPU it shares the array's memory, and is read-only.

    A file mapped by several workers thus stays one copy in memory. Torch has no read-only
    tensors, and warns.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def check_cuda() -> None:
    """Raise RuntimeError if CUDA was used and is broken; a lack of memory does not break it."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        problem, _, _ = str(error).partition("\n")  # advice follows
    else:
        return
    # Neither torch's class nor a cause: Ray would import torch in the search to show them.
    raise RuntimeError(f"CUDA does not work in this process any more: {problem}")


def give_memory_back() -> None:
    """Free unused GPU memory that torch keeps, for other workers."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def peak_memory_mb() -> float:
    """Return the peak memory of this process in MiB; 0 if it is unknown."""
    if sys.platform == "win32":
        return 0.0
    status = Path("/proc/self/status")
    if status.exists():  # getrusage includes the parent's memory at the fork
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes; elsewhere KB
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclass(frozen=True)
class Generators:
    """Random generators on the CPU, beside torch's global one."""

    shuffling: torch.Generator  # of the order of the samples
    unknown: torch.Generator  # of the tokens or categories replaced by the unknown one


@contextmanager
def seeded(seed: int, device: torch.device, *, fold: int = 0) -> Iterator[Generators]:
    """Seed torch's global generator for the block, and yield the other generators.

    First weights and dropout need the global generator; its state is restored. The first fold has
    the seed of a job without folds, each other fold a seed of its own.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(fold,) if fold else ())
    model_seed, shuffling_seed, unknown_seed = map(int, sequence.generate_state(3))
    with torch.random.fork_rng(
        devices=[] if device.type == "cpu" else [torch.cuda.current_device()]
    ):
        torch.default_generator.manual_seed(model_seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(model_seed)
        yield Generators(
            torch.Generator().manual_seed(shuffling_seed),
            torch.Generator().manual_seed(unknown_seed),
        )
