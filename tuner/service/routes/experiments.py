"""Experiments that are proposed or checked; nothing is started."""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request

from tuner.service.access import Reader
from tuner.service.experiments import CheckBody, Checked, Experiments, InitBody, Proposal

router = APIRouter(tags=["experiments"])

_READING = CapacityLimiter(32)  # threads that wait for a file to be read; others are not held up


def _experiments(request: Request) -> Experiments:
    experiments: Experiments = request.app.state.service.experiments
    return experiments


@router.post("/v1/experiments:init")
async def init(request: Request, owner: Reader, body: InitBody) -> Proposal:
    """Propose an experiment for a data file, as `tuner init` does."""
    propose = partial(_experiments(request).propose, owner, body)
    return await to_thread.run_sync(propose, limiter=_READING)


@router.post("/v1/experiments:check")
async def check(request: Request, owner: Reader, body: CheckBody) -> Checked:
    """Check an experiment and its data, as `tuner check` does."""
    checked = partial(
        _experiments(request).check, owner, body.experiment, body.datasets, data=body.data
    )
    return await to_thread.run_sync(checked, limiter=_READING)
