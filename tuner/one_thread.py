"""Linear algebra in one thread: sums then have one order, however many cores a machine has."""

from __future__ import annotations

import contextlib
import threading

from threadpoolctl import threadpool_limits


class _OneThread(contextlib.ContextDecorator):
    """Limits the libraries of linear algebra while any thread of this process is within.

    Their number of threads is that of the process: the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock, self._n_within = threading.Lock(), 0
        self._limits: threadpool_limits | None = None

    def __enter__(self) -> None:
        import scipy.linalg  # noqa: F401  # brings a library, which is limited once it is there

        with self._lock:
            if self._limits is None:
                self._limits = threadpool_limits(1, user_api="blas")
            self._n_within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_within -= 1
            if self._limits is not None and not self._n_within:
                self._limits.restore_original_limits()
                self._limits = None


one_thread = _OneThread()
