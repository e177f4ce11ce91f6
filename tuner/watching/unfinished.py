"""What there is to say of a study besides its result: how far it is, what failed, what is open."""

from __future__ import annotations

from collections import Counter

from tuner.coordination.finalists import retrained_of
from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.errors import one_line
from tuner.watching.state import State

__all__ = ["failures", "is_over", "open_trials", "standing_of"]

_MOST_REASONS = 5


def open_trials(record: StudyRecord) -> list[TrialRecord]:
    """Return the trials that were asked for and have not ended; which of them run, none can say."""
    return [t for t in record.trials if t.status is Status.RUNNING and t.repeat_of is None]


def is_over(record: StudyRecord, state: State) -> bool:
    """Whether no further trial is trained, and those that are open never will be."""
    if state is State.DONE:
        return True
    may_run = state in (State.RUNNING, State.UNKNOWN)  # then trials end after the time is up
    return _time_is_up(record) and (not may_run or any(not t.outcome for t in record.finalists))


def standing_of(record: StudyRecord, state: State) -> list[str]:
    """Return what has become of a search; nothing of one that is done, but that its time was up."""
    over = is_over(record, state)
    said = []
    match state:
        case State.RUNNING:
            said.append("the search is running")
        case State.UNKNOWN:
            said.append("running or killed, its database does not tell: the same command resumes")
        case State.INTERRUPTED if not record.best and (_is_full(record) or _time_is_up(record)):
            said.append("it came to nothing: no trial is complete")
        case State.INTERRUPTED:
            said.append("interrupted: the same command resumes")
    if over and _time_is_up(record):
        said.append(f"the time is up ({record.experiment.budget.timeout:g} s)")
    done, total = retrained_of(record)
    if state is not State.DONE and total and (over or not open_trials(record)):
        undecided = "" if done == total else "; which is the best is decided when all are"
        said.append(f"finalists: {done} of {total} retrained{undecided}")
    return said


def failures(record: StudyRecord) -> list[str]:
    """Return why trials and finalists failed: the most frequent reasons, each with its count."""
    reasons = Counter(
        (trial.role.value, one_line(trial.outcome.reason or "for no known reason"))
        for trial in (*record.trials, *record.finalists)
        if trial.outcome and trial.status is Status.FAILED and trial.repeat_of is None
    )
    lines = [
        f"{count} {role}{'s' * (count != 1)} failed: {reason}"
        for (role, reason), count in reasons.most_common(_MOST_REASONS)
    ]
    if (n_more := len(reasons) - _MOST_REASONS) > 0:
        lines.append(f"and for {n_more} other reason{'s' * (n_more != 1)}")
    return lines


def _is_full(record: StudyRecord) -> bool:
    n_trials = record.experiment.n_trials
    return n_trials is not None and len(record.trained) >= n_trials


def _time_is_up(record: StudyRecord) -> bool:
    limit_s = record.experiment.budget.timeout
    return limit_s is not None and record.seconds >= limit_s and not _is_full(record)
