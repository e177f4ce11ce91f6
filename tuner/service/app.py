"""The application: routes, errors and access put together."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI

from tuner import __version__
from tuner.service import problems
from tuner.service.access import Access
from tuner.service.routes import health
from tuner.service.settings import Settings

DESCRIPTION = "Submit searches, watch them, fetch the best; or ask for trials that train elsewhere."


def make_app(service: Any, access: Access, settings: Settings) -> FastAPI:
    """Return the ASGI application.

    Args:
        service: a `Service`; routes find it as `request.app.state.service`.
        access: who may call.
        settings: of the server.
    """
    app = FastAPI(
        title="tuner",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # both load scripts of other hosts
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.access, app.state.settings = service, access, settings
    app.state.not_ready = None
    problems.add_handlers(app, settings.root)
    for router in _routers():
        app.include_router(router)
    return app


def _routers() -> list[APIRouter]:
    return [health.router]
