"""Refusals of external studies, as answers."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

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


def is_done(study: Study, trained: int) -> Problem:
    """Return that a study gives out no further trial: its space is used, or its budget alone."""
    why = study.exhausted_by(trained) or "its budget is used"
    return Problem(410, f"study {study.name!r} is done: {why}")


def new_budget(changes: Mapping[str, Any]) -> int:
    """Return the trials to which an external study is extended.

    Raises:
        Problem: 422, another key is given, or none.
    """
    trials: int | None = changes.get("trials")
    if set(changes) - {"trials", "reopen_test"} or trials is None:
        raise Problem(422, "an external study has no budget but trials; give trials")
    if changes.get("reopen_test"):
        detail = "reopen_test: an external study has no test; leave it out, got true"
        raise Problem(422, detail, key="reopen_test")
    return trials


def check_not_exhausted(study: Study) -> None:
    """Raise a Problem, 409, if all of a space is tried, also where that was the budget."""
    if (why := study.exhausted) is not None:
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
