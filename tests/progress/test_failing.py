"""A search of which every trial fails says so, once, while there is time to stop it."""

import pytest

from tuner.jobs import Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.progress.reporters import FailureNotice

FAILED = Outcome(OutcomeState.FAILED, reason="it trained for longer than 1 s")
COMPLETE = Outcome(OutcomeState.COMPLETE, 1.0)
PRUNED = Outcome(OutcomeState.PRUNED)


def told(*outcomes, earlier=0, role=Role.TRIAL):
    """Return what is said when trials end so, the first of them in an earlier run."""
    said = []
    observer = FailureNotice(said.append)
    for number, outcome in enumerate(outcomes):
        observer.finished(TrialKey(role, number), outcome, earlier=number < earlier)
    return said


def test_three_failures_are_reported_once_with_the_reason():
    assert told(FAILED, FAILED) == []
    assert told(*[FAILED] * 9) == [
        "every trial so far has failed: it trained for longer than 1 s; Ctrl-C stops"
    ]


@pytest.mark.parametrize("other", [COMPLETE, PRUNED])
def test_where_a_trial_did_not_fail_nothing_is_said(other):
    assert told(other, *[FAILED] * 9) == []
    assert told(FAILED, FAILED, other, *[FAILED] * 9) == []


def test_what_an_earlier_run_finished_is_heard_out_first():
    assert told(*[FAILED] * 5, COMPLETE, FAILED, FAILED, FAILED, earlier=6) == []
    assert told(*[FAILED] * 5, earlier=5) == []
    assert len(told(*[FAILED] * 8, earlier=5)) == 1


def test_finalists_are_no_trials():
    assert told(*[FAILED] * 9, role=Role.FINALIST) == []
