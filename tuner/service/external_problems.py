"""Refusals of external studies, as answers."""

from __future__ import annotations

import errno

from tuner.coordination.leases import LeaseConflict, NoSuchTrial
from tuner.errors import JournalAway, RunError, TunerError
from tuner.experiment import space_size
from tuner.experiment.external import ExternalSpec
from tuner.service.problems import Problem
from tuner.service.settings import Settings
from tuner.service.studies import State, Study, all_tried


def still_writes(study: Study) -> JournalAway:
    """Return that a study cannot be changed, as its thread waits for the journal."""
    rule = f"the journal of study {study.name!r} has not taken what is written for seconds"
    return JournalAway(rule, remedy="try again later")


def is_cancelled(study: Study) -> Problem:
    """Return that a cancelled study gives out no trial."""
    return Problem(409, f"study {study.name!r} is cancelled; resume it to go on")


def is_done(study: Study, trained: int) -> Problem:
    """Return that a study gives out no further trial: its budget is used, or its space before."""
    why = study.exhausted_by(trained) or "its budget is used"
    return Problem(410, f"study {study.name!r} is done: {why}")


def check_not_exhausted(study: Study) -> None:
    """Raise a Problem, 409, if all of a space is tried, also where that was the budget."""
    if study.state is not State.DONE:
        return
    n, why = study.progress.trained, study.exhausted
    if why is None:
        spec = ExternalSpec.model_validate(study.spec)
        size = space_size(spec.space) if spec.distinct else None
        why = all_tried(n) if size is not None and n >= size else None
    if why is not None:
        raise Problem(409, f"study {study.name!r} cannot be extended: {why}", key="trials")


def problem_of(error: TunerError, settings: Settings) -> Problem:
    """Return the error of a request to an open study as an answer."""
    status, cause = None, error.__context__
    if isinstance(error, NoSuchTrial):
        status = 404
    elif isinstance(error, LeaseConflict):
        status = 409
    elif isinstance(error, RunError):  # the journal cannot be written
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        status = 507 if full else 503
    return Problem.of(error, status=status, root=settings.root)
