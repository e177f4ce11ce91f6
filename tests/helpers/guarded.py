"""A small application behind the guard of the service."""

import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tuner.service.access import Access
from tuner.service.guard import Condition, Guard
from tuner.service.problems import METHODS, add_handlers
from tuner.service.settings import Settings

BASE = "http://127.0.0.1:8080"


class Recorder:
    """The answers that a guard reports."""

    def __init__(self):
        self.seen = []

    def __call__(self, answered):
        self.seen.append(answered)


async def settled(condition):
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def guarded_app(settings=None, access=None, condition=None, observers=()):
    """An application with a few routes behind a guard."""
    settings = settings or Settings()
    app = FastAPI()
    add_handlers(app)
    app.state.entered, app.state.left, app.state.parts = [], [], []

    @app.api_route("/v1/echo", methods=list(METHODS))
    async def echo(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.api_route("/health", methods=["GET", "POST"])
    async def health() -> str:
        return "ok"

    @app.put("/v1/workers/x/blobs/x")
    @app.put("/v1/datasets/x")
    async def upload(request: Request) -> int:
        n_bytes = 0
        async for part in request.stream():
            app.state.parts.append(len(part))
            n_bytes += len(part)
        return n_bytes

    @app.get("/v1/studies/x/events")
    async def events() -> StreamingResponse:
        async def stream():
            app.state.entered.append(1)
            try:
                yield b"data: 1\n\n"
                await asyncio.Event().wait()
            finally:
                app.state.left.append(1)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.post("/v1/wait")
    async def wait() -> None:
        app.state.entered.append(1)
        await asyncio.Event().wait()

    @app.get("/v1/fails")
    async def fails() -> None:
        raise ZeroDivisionError("a secret")

    @app.get("/v1/breaks")
    async def breaks() -> StreamingResponse:
        async def stream():
            yield b"half"
            raise ZeroDivisionError("a secret")

        return StreamingResponse(stream())

    app.add_middleware(
        Guard,
        access=access or Access(None, settings.limits),
        settings=settings,
        condition=condition or Condition(),
        observers=observers,
    )
    return app
