"""Runs a command, and measures all of its processes: wall and processor time, memory.

wall     from the start of the command to its end
cpu      processor time of the command and of every process that it started, as the system
         counts it; orphans are adopted and waited for (Linux)
memory   the largest sum of the processes' proportional set sizes, so that pages that they
         share count once; looked at every quarter of a second, or as often as takes 3 % of
         the time
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_EVERY_S = 0.25
_SHARE = 0.03  # of the time that looking may take
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>


@dataclass
class Measured:
    """What a command took, and what it said."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    largest_mb: float = 0.0  # of one process
    processes: int = 0  # most at a time
    began: float = 0.0  # seconds since 1970
    failed: str | None = None
    over: bool = False  # whether it was ended for its time
    said: str = ""
    cpu_of: dict[int, float] = field(default_factory=dict)  # as last seen, by process id


def measure(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limit_s: float
) -> Measured:
    """Run a command in a folder to its end, or kill it and all it started after `limit_s`.

    Its standard output is in `said`; standard error is in the file `errors.txt` of the folder.
    """
    adopt_orphans(True)
    spared = {child.pid for child in psutil.Process().children()}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = Measured(began=time.time())
    try:
        with (folder / "said.txt").open("w") as out, (folder / "errors.txt").open("w") as errors:
            begun = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, "PEER_BEGAN": repr(found.began)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )
            if not watch(process, found, begun + limit_s):
                found.failed, found.over = f"over the limit of {limit_s:g} s", True
            found.wall_s = time.perf_counter() - begun
    finally:
        end_all_but(spared)
        adopt_orphans(False)
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    waited = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # A parent that ignores its children's ends does not add their time to its own.
    found.cpu_s = max(waited, sum(found.cpu_of.values()))
    found.said = (folder / "said.txt").read_text()
    if found.failed is None and process.returncode:
        last = (folder / "errors.txt").read_text().strip().splitlines()[-1:]
        found.failed = f"exit status {process.returncode}: {''.join(last)[:200]}"
    return found


def watch(process: subprocess.Popen[bytes], found: Measured, until: float) -> bool:
    """Look at the processes until the command ends; return whether it did in time."""
    root, pause = psutil.Process(process.pid), _EVERY_S
    while time.perf_counter() < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
            return True
        looked = time.perf_counter()
        with contextlib.suppress(psutil.NoSuchProcess):
            look(root, found)
        pause = max(_EVERY_S, (time.perf_counter() - looked) / _SHARE)
    return False


def look(root: psutil.Process, found: Measured) -> None:
    """Note the memory and the processor time of a process and of all below it."""
    sizes = []
    for each in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = each.cpu_times()
            found.cpu_of[each.pid] = times.user + times.system
            sizes.append(each.memory_full_info().pss / 2**20)
    found.peak_mb = max(found.peak_mb, sum(sizes))
    found.largest_mb = max(found.largest_mb, *sizes, 0.0)
    found.processes = max(found.processes, len(sizes))


def adopt_orphans(adopt: bool) -> None:
    """Make this process the parent of what its children leave behind, or no longer."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_SUBREAPER, int(adopt), 0, 0, 0)


def end_all_but(spared: set[int]) -> None:
    """Kill all children but these, with all below them, and wait for their ends."""
    while children := [c for c in psutil.Process().children() if c.pid not in spared]:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in [*child.children(recursive=True), child]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.send_signal(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
