"""A service with pull workers, over HTTP in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from helpers.ports import free_port
from tuner.executors import LocalExecutor
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.pull_worker import PullAgent
from tuner.service.settings import Settings


@contextmanager
def served(service: Any, access: Access, root: Path, port: int | None = None) -> Iterator[str]:
    """Serve the routes of a service, and yield its URL."""
    port = free_port() if port is None else port
    app = make_app(service, access, Settings(root=root))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def agents(url: str, token: str | None = None) -> Iterator[Callable[..., threading.Event]]:
    """Yield a function that runs a worker in a thread and returns what stops it."""
    with ExitStack() as stack:

        def begin(
            n_workers: int = 1, make: Callable[[int], LocalExecutor] = LocalExecutor
        ) -> threading.Event:
            stop = threading.Event()
            agent = PullAgent(url, token, n_workers, lambda text: None, make)
            thread = threading.Thread(target=agent.run, args=(stop,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(stop.set)
            return stop

        yield begin
