"""Experiments that are proposed or checked; nothing is started."""

from __future__ import annotations

from fastapi import APIRouter, Request

from tuner.service import threads
from tuner.service.access import Reader
from tuner.service.experiments import CheckBody, Checked, Experiments, InitBody, Proposal

router = APIRouter(tags=["experiments"])


def _experiments(request: Request) -> Experiments:
    experiments: Experiments = request.app.state.service.experiments
    return experiments


@router.post("/v1/experiments:init")
@threads.in_threads(threads.READING)
def init(request: Request, owner: Reader, body: InitBody) -> Proposal:
    """Propose an experiment for a data file, as `tuner init` does."""
    return _experiments(request).propose(owner, body)


@router.post("/v1/experiments:check")
@threads.in_threads(threads.READING)
def check(request: Request, owner: Reader, body: CheckBody) -> Checked:
    """Check an experiment and its data, as `tuner check` does."""
    own = _experiments(request)
    return own.check(owner, body.experiment, body.datasets, data=body.data)
