"""Refusals of external studies, as answers."""

from __future__ import annotations

import errno

from tuner.coordination.leases import LeaseConflict, NoSuchTrial
from tuner.errors import JournalAway, RunError, TunerError
from tuner.service.problems import Problem
from tuner.service.settings import Settings
from tuner.service.studies import Study


def still_writes(study: Study) -> JournalAway:
    """Return that a study cannot be changed, as its thread waits for the journal."""
    rule = f"the journal of study {study.name!r} has not taken what is written for seconds"
    return JournalAway(rule, remedy="try again later")


def is_cancelled(study: Study) -> Problem:
    """Return that a cancelled study gives out no trial."""
    return Problem(409, f"study {study.name!r} is cancelled; resume it to go on")


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
