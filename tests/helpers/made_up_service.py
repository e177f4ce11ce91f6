"""Stands for a `Service` in tests of the page: studies, trials and data in memory."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import uvicorn
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from helpers.ports import free_port
from tuner.journal.records import StudyRecord
from tuner.service.access import Access, Owner, Reader
from tuner.service.app import make_app
from tuner.service.datasets import Dataset
from tuner.service.experiments import Checked, InitBody, Proposal
from tuner.service.problems import Problem
from tuner.service.settings import Settings
from tuner.service.submissions import parse_experiment

BEGUN = "2026-11-30T08:{:02d}:12.345+00:00"


def make_study(name: str = "air_passengers-woa-0", **changes: Any) -> dict[str, Any]:
    """Return a study as GET /v1/studies/{name} answers it."""
    study = {
        "name": name,
        "kind": "search",
        "state": "running",
        "owner": "local",
        "experiment": "air_passengers",
        "strategy": "woa",
        "seed": 0,
        "metric": "rmse",
        "direction": "minimize",
        "trials": 60,
        "trained": 40,
        "best": None,
        "submitted": BEGUN.format(1),
        "began": BEGUN.format(2),
        "ended": None,
        "error": None,
        "priority": 0,
        "max_workers": None,
        "position": None,
        "exhausted": None,
        "waits": None,
        "datasets": [],
    }
    return study | changes


def make_rows(n: int, seed: int = 0, params: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return trials as `tuner show --json` prints them; the scores fall slowly."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        value = 18 + 20 * math.exp(-number / max(8, n / 8)) + float(rng.gamma(2, 2.5))
        status = "failed" if number % 17 == 5 else "pruned" if number % 7 == 3 else "complete"
        searched = {
            "hidden_size": int(rng.integers(4, 64)),
            "dropout": float(rng.uniform(0, 0.5)),
            "learning_rate": float(10 ** rng.uniform(-4, -2)),
            "batch_size": int(rng.choice([8, 16, 32])),
            "normalize": str(rng.choice(["none", "last", "mean"])),
        }
        searched |= {name: float(rng.uniform()) for name in params}
        rows.append(
            {
                "number": number,
                "status": status,
                "value": value if status == "complete" else None,
                "params": searched,
                "repeat_of": None,
                "seed": number,
                "epochs": int(rng.integers(4, 80)),
                "seconds": float(rng.gamma(2, 4)),
                "weights": 1234,
                "latency_ms": None,
                "reason": "the loss is not finite in epoch 3" if status == "failed" else None,
            }
        )
    return rows


class MadeUpService:
    """What `routes/page.py` uses of a service."""

    def __init__(self) -> None:
        self.settings = Settings(root=Path(f"made-up-{id(self)}"))
        self.known: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.data: dict[str, Dataset] = {}
        self.asked: InitBody | None = None
        self.proposal: dict[str, Any] | Exception = {"yaml": "name: a\n", "notes": []}
        self.records: dict[str, StudyRecord] = {}  # of finished searches
        self.datasets = self.experiments = self
        self.studies = SimpleNamespace(get=self.study)
        self.results = SimpleNamespace(
            study=self.study,
            studies=self.page,
            queue=self.queue,
            trials=self.trials,
            scores=self.scores,
            record=self.record,
        )
        begun = SimpleNamespace(lines=b'{"event": "begun", "id": "a1"}\n')
        log = SimpleNamespace(end=7, read=lambda after: begun)
        self.events = SimpleNamespace(of=lambda owner, name: log)

    def add(self, study: dict[str, Any], rows: list[dict[str, Any]] = ()) -> None:
        """Add a study with its trials; its progress follows from them."""
        self.rows[study["name"]] = list(rows)
        scored = [row for row in rows if row["value"] is not None]
        if scored:
            sign = 1 if study["direction"] == "minimize" else -1
            best = min(scored, key=lambda row: sign * row["value"])
            study |= {
                "best": {
                    "trial": best["number"],
                    "score": best["value"],
                    "params": best["params"],
                }
            }
        self.known[study["name"]] = study | {"trained": len(rows)}

    def study(self, owner: str, name: str) -> dict[str, Any]:
        found = self.known.get(name)
        if found is None or found["owner"] != owner:
            raise Problem(404, f"no study {name!r}")
        return dict(found)

    def page(self, owner, state, query, cursor, limit):
        own = [s for s in reversed(self.known.values()) if s["owner"] == owner]
        found = [dict(s) for s in own if state in (None, s["state"]) and (query or "") in s["name"]]
        start = int(cursor or 0)
        more = str(start + limit) if len(found) > start + limit else None
        return {"items": found[start : start + limit], "next": more}

    def queue(self, owner):
        own = [s for s in self.known.values() if s["owner"] == owner]
        waiting = [dict(s) for s in own if s["state"] in ("running", "queued")]
        busy = min(2, sum(s["state"] == "running" for s in waiting))
        return {"workers": 2, "busy": busy, "studies": waiting}

    def trials(self, owner, name, status, order, cursor, limit):
        study, rows = self.study(owner, name), self.rows[name]
        rows = [row for row in rows if status in (None, row["status"])]
        sign = 1 if study["direction"] == "minimize" else -1
        if order == "score":
            rows = sorted(
                rows, key=lambda r: (r["value"] is None, sign * (r["value"] or 0), r["number"])
            )
        elif order == "-number":
            rows = rows[::-1]
        start = int(cursor or 0)
        more = str(start + limit) if len(rows) > start + limit else None
        return {"items": rows[start : start + limit], "next": more, "total": len(rows)}

    def scores(self, owner, name):
        return [row["value"] for row in self.rows[name]]

    def record(self, study):
        if study["name"] not in self.records:
            raise Problem(409, "it has no record yet")
        return self.records[study["name"]]

    def list(self, owner):
        return list(self.data.values())

    def get(self, owner, dataset):
        if dataset not in self.data:
            raise Problem(404, f"no dataset {dataset!r}")
        return self.data[dataset]

    def path_of(self, owner, dataset):
        self.get(owner, dataset)
        return Path("/nowhere") / f"{dataset}.csv"

    def propose(self, owner: Owner, body: InitBody) -> Proposal:
        self.asked = body
        if isinstance(self.proposal, Exception):
            raise self.proposal
        return Proposal(does="forecasts", **self.proposal)

    def check(self, owner: Owner, text: str, *, data: bool) -> Checked:
        parse_experiment(text, {}, owner, self, self.settings)
        found = {"rows": [("task", "one row ahead")], "size": 12, "space": [], "advice": []}
        found |= {"fixed": [], "suspect": False}
        return Checked(experiment={}, check=found if data else None)


class MadeUpEvents:
    """Event streams and verbs of a made-up service, as far as the page uses them."""

    def __init__(self, service: MadeUpService) -> None:
        self.service = service
        self.sent: list[str] = []
        self.open = 0
        self.cuts = 0
        self.resumed_from: str | None = None  # the Last-Event-ID of the newest stream
        self.refusal = "it is refused"
        self.router = APIRouter()
        self.router.add_api_route("/v1/studies/{name}/events", self.events)
        self.predicted: list[tuple[str, str, bytes]] = []  # types and content of requests
        self.router.add_api_route("/v1/studies/{name}/predict", self.predict, methods=["POST"])
        self.router.add_api_route("/v1/studies/{name}", self.delete, methods=["DELETE"])
        self.router.add_api_route("/v1/studies/{name}/{verb}", self.act, methods=["POST"])
        self.router.add_api_route("/v1/studies/{name}/best", self.best)

    def send(self, name: str = "finished") -> None:
        """Let all streams send an event."""
        self.sent.append(name)

    def cut(self) -> None:
        """End all streams."""
        self.cuts += 1

    async def events(self, request: Request) -> StreamingResponse:
        self.resumed_from = request.headers.get("last-event-id")
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        place, cuts = len(self.sent), self.cuts
        self.open += 1
        try:
            while True:
                for event in self.sent[place:]:
                    place += 1
                    yield f"id: {place}\nevent: {event}\ndata: {{}}\n\n"
                if cuts != self.cuts:
                    return
                await asyncio.sleep(0.02)
        finally:
            self.open -= 1

    def act(self, name: str, verb: str) -> None:
        raise Problem(409, self.refusal)

    def delete(self, name: str) -> Response:
        if not self.service.known[name]["state"] == "done":
            raise Problem(409, self.refusal)
        del self.service.known[name]
        return Response(status_code=204)

    async def predict(self, name: str, request: Request) -> Response:
        """Predict a row for each line of a file, or two."""
        content, headers = await request.body(), request.headers
        self.predicted.append((headers["content-type"], headers["accept"], content))
        if content == b"wrong":
            raise Problem(422, self.refusal)
        if headers["accept"] == "text/csv":
            return Response("month,sold\n1,2\n", media_type="text/csv")
        n = 2 if content == b"{}" else content.count(b"\n") - 1
        rows = [
            {"month": f"1961-{month + 1:02d}-01T00:00:00", "sold": 100 / 3 + month, "series": None}
            for month in range(n)
        ]
        note = "the rows of the first 12 months are used"
        dtypes = {"month": "datetime64[ns]", "sold": "float64", "series": "object"}
        return JSONResponse({"rows": rows, "dtypes": dtypes, "notes": [note] if n > 2 else []})

    def best(self, name: str, owner: Reader) -> Response:
        return Response(f"name: {name}\n", media_type="application/yaml")


@contextmanager
def served(service: MadeUpService, access: Access, settings: Settings) -> Iterator[Served]:
    """Serve a made-up service at a port of loopback, in a thread."""
    events, port = MadeUpEvents(service), free_port()
    app = make_app(service, access, settings)
    before = list(app.router.routes)
    app.include_router(events.router)
    own = [route for route in app.router.routes if route not in before]
    app.router.routes[:] = [*own, *before]  # they stand before the routes of a real service
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield Served(f"http://127.0.0.1:{port}", service, events)
    finally:
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Served:
    """A made-up service and its address."""

    url: str
    service: MadeUpService
    events: MadeUpEvents
