"""The attributes under which the coordinator writes what Optuna has no place for."""

from __future__ import annotations

__all__ = [
    "DURABLE",
    "FINALIST_ATTR",
    "LOST_ATTR",
    "OUTCOME_ATTR",
    "REPEAT_ATTR",
    "RUN_ATTR",
    "STUDY_ATTR",
    "TEST_ATTR",
    "TIME_ATTR",
    "TOLD_ATTR",
]

STUDY_ATTR = "tuner"  # of a study: what it searches, and on which data
TEST_ATTR = "test"  # of a study: the one opening of the test part
RUN_ATTR = "run"  # of a study: the budget of its last run, and how that ended
TIME_ATTR = "seconds"  # of a study: how long the runs that searched took, together
OUTCOME_ATTR = "outcome"  # of a trial: how its training ended
REPEAT_ATTR = "repeat_of"  # of a trial: the earlier trial with the same configuration
LOST_ATTR = "lost"  # of a trial: why the machine took attempts away, in order
TOLD_ATTR = "asked_after"  # of a trial: how many trials had been told when it was asked
FINALIST_ATTR = "finalist"  # of a finalist's trial: [configuration's trial number, repeat]

DURABLE = frozenset({STUDY_ATTR, TEST_ATTR, OUTCOME_ATTR})
"""What cannot be worked out again without cost: it is on the disk before the search goes on."""
