"""The executors by name, and how many jobs each runs at a time.

A new executor is a file with an `Executor` and its opener, and a line in `EXECUTORS`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from tuner.errors import InputError, nearest, one_line
from tuner.executors.base import Executor
from tuner.experiment.schema import Resources

_KINDS = ("CPU", "GPU")  # of resources, as Ray names them


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many workers fit on a node at a time.

    Args:
        node: its resources by Ray's names, CPU and GPU.
        cpus: of each worker, above 0.
        gpus: of each worker; a part of one GPU, or a whole number of them.
    """
    by_cpus = math.floor(node.get("CPU", 0) / cpus + 1e-9)  # 7 / 0.07 is below 100
    if not gpus:
        return by_cpus
    has = math.floor(node.get("GPU", 0))
    by_gpus = has // math.ceil(gpus) if gpus >= 1 else has * math.floor(1 / gpus)
    return min(by_cpus, by_gpus)


@dataclass(frozen=True)
class ExecutorChoice:
    """An executor that can be made, and its capacity."""

    make: Callable[[int], Executor]  # by the number of workers
    capacity: int  # jobs that have room at a time, at least 1
    unit: str  # the limit: "this machine's 2 cores", "the cluster's 1 GPU"


@dataclass(frozen=True)
class Machines:
    """Where workers may run: this machine or a cluster."""

    nodes: Sequence[dict[str, float]]  # by Ray's names: CPU, GPU
    is_cluster: bool

    @property
    def name(self) -> str:
        """Name for messages."""
        return "the cluster" if self.is_cluster else "this machine"

    @property
    def cores(self) -> str:
        """Word for CPUs in messages."""
        return "CPUs" if self.is_cluster else "cores"

    def check(self, resources: Resources) -> None:
        """Raise InputError if no job fits anywhere, and none waits for a node that has room."""
        if self.is_cluster and resources.wait is not None:
            return
        most = {kind: max((n.get(kind, 0) for n in self.nodes), default=0) for kind in _KINDS}
        if not most["CPU"]:
            rule = "no node of the cluster has a CPU"
            raise InputError(rule, where="--executor", remedy="start one that has")
        of = "that a node of the cluster has" if self.is_cluster else "of this machine"
        for key, kind, word in (("cpus", "CPU", self.cores), ("gpus", "GPU", "GPUs")):
            wanted = getattr(resources, key)
            if wanted and not most[kind]:
                rule = f"must be 0 where there is no GPU, and {self.name} has none"
                remedy = "write --set resources.gpus=0, or run where there is one"
                raise InputError(rule, key=f"resources.{key}", got=f"{wanted:g}", remedy=remedy)
            if wanted > most[kind]:
                rule = f"must be at most {most[kind]:g}, the {word} {of}"
                remedy = f"write --set resources.{key}={min(1, most[kind]):g}"
                raise InputError(rule, key=f"resources.{key}", got=f"{wanted:g}", remedy=remedy)
        if not self.capacity(resources):
            rule = "resources: no node of the cluster has both the CPUs and the GPUs"
            got = f"cpus={resources.cpus:g}, gpus={resources.gpus:g}"
            raise InputError(rule, got=got, remedy="write --set resources.cpus=1")

    def capacity(self, resources: Resources) -> int:
        """Return how many jobs fit at a time."""
        return sum(room(node, resources.cpus, resources.gpus) for node in self.nodes)

    def limit(self, resources: Resources) -> str:
        """Return the resource that so many jobs use up."""
        by_cpus = sum(room(node, resources.cpus, 0) for node in self.nodes)
        is_gpus = self.capacity(resources) < by_cpus
        n = sum(node.get("GPU" if is_gpus else "CPU", 0) for node in self.nodes)
        kind = "GPUs" if is_gpus else self.cores
        return f"{self.name}'s {n:g} {kind if n != 1 else kind[:-1]}"


Opener = Callable[
    [str, Resources, Callable[[str], None]], tuple[Machines, Callable[[int], Executor]]
]
"""Takes the name in `--executor`, the resources of a worker, and a function that shows a note;
returns the machines and a function that makes the executor from the number of workers."""

EXECUTORS = {
    "local": "tuner.executors.local:open_local",
    "ray": "tuner.executors.ray_executor:open_ray",
}
"""The opener of each executor, imported when it is chosen; the name ends at a colon."""

GROUP = "tuner.executors"
"""The entry points with which installed packages offer openers."""


def choose_executor(
    name: str, resources: Resources, note: Callable[[str], None] = lambda text: None
) -> ExecutorChoice:
    """Return the executor of a name: `local`, `ray`, `ray://HOST:PORT`, or an installed one.

    A running cluster is connected to at once; the executor made of the choice disconnects when it
    is closed.

    Args:
        name: the executor.
        resources: of each worker.
        note: shows a note to the user while the executor runs.

    Raises:
        InputError: there is no such executor, it cannot be reached, or it has no room for a
            single job.
    """
    openers = {found.name: found.value for found in entry_points(group=GROUP)} | EXECUTORS
    kind = name.partition(":")[0]
    if kind not in openers or (kind == "local" != name):
        known = [*EXECUTORS, "ray://HOST:PORT", *(n for n in openers if n not in EXECUTORS)]
        rule = f"unknown executor {name!r}"
        raise InputError(rule, where="--executor", remedy=nearest(name, known))
    try:
        open_executor: Opener = EntryPoint(kind, openers[kind], GROUP).load()
    except (ImportError, AttributeError) as error:
        got = f"{kind!r} of {openers[kind]}: {one_line(error)}"
        rule = "cannot be imported"
        raise InputError(rule, where="--executor", got=got, remedy="correct the package") from None
    machines, make = open_executor(name, resources, note)
    machines.check(resources)
    capacity = max(1, machines.capacity(resources))
    return ExecutorChoice(make, capacity, machines.limit(resources))
