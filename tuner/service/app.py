"""The application: routes, errors, access and the guard put together."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant

from tuner import __version__
from tuner.errors import ExperimentError, nearest
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
        app.include_router(router, dependencies=[Depends(_check_query)])
    app.include_router(page.router)  # an old link of a view still opens
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
    parts = (external, workers, health, datasets, experiments, studies, events)
    return [part.router for part in parts]


async def _check_query(request: Request) -> None:
    """Refuse a parameter of the URL that the route does not have; probes may send any."""
    route = request.scope["route"]
    if not request.query_params or not route.path.startswith("/v1/"):
        return
    known = _parameters(route.dependant)
    if (unknown := next((key for key in request.query_params if key not in known), None)) is None:
        return
    error = ExperimentError(
        "unknown parameter", where="query", key=unknown[:80], remedy=nearest(unknown, known) or None
    )
    raise problems.Problem.of(error, status=422)


def _parameters(dependant: Dependant) -> list[str]:
    """Return the names of the parameters of a route and of what it depends on."""
    own = [field.alias for field in dependant.query_params]
    return own + [name for inner in dependant.dependencies for name in _parameters(inner)]
