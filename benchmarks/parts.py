"""Where the time goes: wall and processor time of some functions, each without those inside."""

from __future__ import annotations

import collections
import functools
import threading
import time
from typing import Any


class Parts:
    """Adds up the time spent in some functions, each without those inside it."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = collections.defaultdict(float)
        self.cpu_s: dict[str, float] = collections.defaultdict(float)
        self.calls: collections.Counter[str] = collections.Counter()
        self._local = threading.local()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the time of `owner.name` to `part` from now on."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            stack = self._local.__dict__.setdefault("stack", [])
            stack.append([0.0, 0.0])  # wall and processor time of the parts inside
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                wall_inside, cpu_inside = stack.pop()
                self.wall_s[part] += wall - wall_inside
                self.cpu_s[part] += cpu - cpu_inside
                self.calls[part] += 1
                if stack:
                    stack[-1][0] += wall
                    stack[-1][1] += cpu

        setattr(owner, name, watched)
