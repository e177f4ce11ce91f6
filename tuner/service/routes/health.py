"""Whether the service lives and is ready, and who the caller is."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from tuner.service.access import Anyone, Role
from tuner.service.guard import Condition
from tuner.service.metrics import MEDIA_TYPE, Metrics
from tuner.service.problems import Problem

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """The service lives."""

    status: Literal["ok"] = "ok"


class Me(BaseModel):
    """The caller."""

    owner: str
    role: Role
    limits: dict[str, int | None]


@router.get("/health")
async def health() -> Health:
    """Return that the process lives. It needs no token."""
    return Health()


@router.get("/ready", responses={503: {"description": "It starts, or stands by."}})
async def ready(request: Request) -> Health:
    """Return whether searches can be submitted. It needs no token."""
    condition: Condition = request.app.state.condition
    why = condition.not_ready or getattr(request.app.state.service, "failed", None)
    if why is not None:
        raise Problem(503, why, headers={"Retry-After": "5"})
    return Health()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, _: Anyone) -> Response:
    """Return figures of the service for Prometheus."""
    measured: Metrics = request.app.state.metrics
    return Response(measured.text(), media_type=MEDIA_TYPE)


@router.get("/v1/me")
async def me(owner: Anyone) -> Me:
    """Return whose token it is, and the limits."""
    limits: dict[str, Any] = dataclasses.asdict(owner.limits)
    return Me(owner=owner.name, role=owner.role, limits=limits)
