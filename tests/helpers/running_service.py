"""A whole service behind a real server, in threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from helpers.ports import free_port
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.guard import Condition
from tuner.service.service import Service
from tuner.service.settings import Settings

SOON_S = 30


@dataclass
class Running:
    """A service that answers at `url`."""

    service: Service
    url: str
    port: int


@contextlib.contextmanager
def running_service(
    settings: Settings,
    make_pool: Callable[[int], Any] | None = None,
    *,
    access: Access | None = None,
    port: int | None = None,
) -> Iterator[Running]:
    """Serve until the block ends; then streams are closed, and searches handed back."""
    service, port = Service(settings, make_pool), port or free_port()
    assert service.start()
    try:
        with served(make_app, service, access or Access(), settings, port=port):
            yield Running(service, f"http://127.0.0.1:{port}", port)
    finally:
        service.stop()


@contextlib.contextmanager
def served(make: Callable[..., Any], *parts: Any, port: int) -> Iterator[None]:
    """Serve an application, made from its parts, at a port of loopback."""
    condition = Condition()
    app = make(*parts, condition=condition)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ws="none", lifespan="off", log_config=None,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    server, loop = uvicorn.Server(config), asyncio.new_event_loop()
    up = threading.Event()

    async def serve() -> None:
        serving = asyncio.ensure_future(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        up.set()
        await serving

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(SOON_S)
    assert server.started
    try:
        yield
    finally:
        loop.call_soon_threadsafe(condition.end_requests)
        server.should_exit = True
        thread.join(SOON_S)
        assert not thread.is_alive()
