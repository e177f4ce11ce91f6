"""The application: routes, errors, access and the guard put together."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI

from tuner import __version__
from tuner.service import problems
from tuner.service.access import Access
from tuner.service.audit import AuditLog
from tuner.service.figures import figures
from tuner.service.guard import Condition, Guard
from tuner.service.metrics import Metrics
from tuner.service.openapi import describe
from tuner.service.routes import (
    datasets,
    events,
    experiments,
    external,
    health,
    page,
    studies,
    workers,
)
from tuner.service.settings import Settings

DESCRIPTION = "Submit searches, watch them, fetch the best; or ask for trials that train elsewhere."


def make_app(
    service: Any,
    access: Access,
    settings: Settings,
    *,
    condition: Condition | None = None,
    audit: AuditLog | None = None,
) -> FastAPI:
    """Return the ASGI application.

    Args:
        service: a `Service`; routes find it as `request.app.state.service`.
        access: who may call.
        settings: of the server.
        condition: of the service; by default it is ready.
        audit: the log of who did what.
    """
    app = FastAPI(
        title="tuner",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # both load scripts of other hosts
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    condition, metrics = condition or Condition(), Metrics()
    app.state.service, app.state.access, app.state.settings = service, access, settings
    app.state.condition, app.state.metrics = condition, metrics
    metrics.add_source(lambda: figures(service, condition))
    problems.add_handlers(app, settings.root)
    for router in _routers():
        app.include_router(router)
    describe(app)
    app.add_middleware(
        Guard,
        access=access,
        settings=settings,
        condition=condition,
        observers=(metrics, *([audit] if audit else [])),
    )
    return app


def _routers() -> list[APIRouter]:
    parts = (external, workers, health, datasets, experiments, studies, events, page)
    return [part.router for part in parts]
