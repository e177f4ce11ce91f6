"""Calls in threads, and waits for what they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_thread(call: Callable[[], T]) -> Callable[[], T]:
    """Start a call in a thread; the result is a function that waits for its answer."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()

    def wait() -> T:
        thread.join(20)
        return found[0]

    return wait


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is so, for 10 s at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
