"""An empty service: its handlers only wait for the disk, once for all that wait.

It answers the requests of `service_load.py trials`, so it shows beside the service what the
machine, its disk, FastAPI and the clients take by themselves.

    python benchmarks/service_floor.py --root FOLDER --port 8081
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import queue
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


class Lines(threading.Thread):
    """A file of lines; all that wait for the disk share a wait."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._waiting: queue.SimpleQueue[tuple[bytes, Future[None]]] = queue.SimpleQueue()

    async def write(self, line: bytes) -> None:
        """Append a line; it is on the disk when this returns."""
        written: Future[None] = Future()
        self._waiting.put((line, written))
        await asyncio.wrap_future(written)

    def run(self) -> None:
        """Write what waits, again and again."""
        with self._path.open("ab", buffering=0) as file:
            while True:
                group = [self._waiting.get()]
                while not self._waiting.empty():
                    group.append(self._waiting.get())
                file.write(b"".join(line for line, _ in group))
                os.fsync(file.fileno())
                for _, written in group:
                    written.set_result(None)


@app.get("/ready")
async def ready() -> dict[str, bool]:
    """Answer that it takes requests."""
    return {"ready": True}


@app.post("/v1/external-studies/{name}/ask")
async def ask(name: str, request: Request) -> Response:
    """Give out a trial of nothing."""
    number = next(app.state.numbers)
    await _keep(number, request)
    params = {f"x{i}": 0.5 for i in range(3)}
    return _json({"trials": [{"number": number, "params": params, "lease": "0" * 32}]})


@app.post("/v1/external-studies/{name}/trials/{number}/tell")
async def tell(name: str, number: int, request: Request) -> Response:
    """Take a value."""
    await _keep(number, request)
    return _json({"number": number})


async def _keep(number: int, request: Request) -> None:
    body = await request.json()
    await app.state.lines.write(json.dumps({"number": number, **body}).encode() + b"\n")


def _json(value: Any) -> Response:
    return Response(json.dumps(value).encode(), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    options.root.mkdir()
    app.state.numbers, app.state.lines = itertools.count(), Lines(options.root / "lines")
    app.state.lines.start()
    gc.freeze()
    uvicorn.run(app, port=options.port, http="h11", ws="none", log_level="warning")


if __name__ == "__main__":
    main()
