"""How often the test part was opened, and what that makes of its score: in words."""

from __future__ import annotations

from tuner.coordination.finalists import default_of
from tuner.coordination.records import StudyRecord
from tuner.results.winner import find_winner

__all__ = ["REOPEN", "opened_in_words", "why_not_again"]

REOPEN = "--reopen-test"
"""The option that opens the test part again."""


def opened_in_words(record: StudyRecord) -> list[str]:
    """Return sentences about the openings of the test part; none before the first."""
    openings, test = record.openings, record.test
    if test is None:
        return []
    after = [f"{opening['after_trials']:,}" for opening in openings]
    if len(openings) == 1:
        trials = "1 trial" if after[0] == "1" else f"{after[0]} trials"
        said = [f"The test part was opened once, after {trials}."]
    else:
        said = [
            f"The test part was opened {len(openings)} times, after {', '.join(after[:-1])} and "
            f"{after[-1]} trials: the newest score is no longer of unseen rows, for an earlier "
            f"one was known when the search went on."
        ]
    if differing := test.get("retrained_differently"):
        said.append(
            f"Trained again for it, with other scores than the journal has (another CPU or "
            f"version?): {', '.join(differing)}."
        )
    if record.best is None or test["after_trials"] >= len(record.trained):
        return said
    winner = find_winner(record).trial.number
    if winner == test["configuration"]:
        said.append(
            f"The search has gone on since, to {len(record.trained):,} trials, and the same "
            f"configuration won: its score stands."
        )
    else:
        said.append(
            f"The search has gone on since, to {len(record.trained):,} trials, and trial {winner} "
            f"won, which has no test score: tuner run with {REOPEN} opens the test part again."
        )
    return said


def why_not_again(record: StudyRecord) -> str | None:
    """Return why another opening would say nothing new; None where it would, or is the first."""
    test = record.test
    if test is None:
        return None
    if test["after_trials"] >= len(record.trained):
        return (
            f"{REOPEN}: the test part stays closed, for nothing would be new: no trial was trained "
            f"since it was opened"
        )
    winner = find_winner(record).trial.number
    if winner != test["configuration"] or (default_of(record) and not test.get("default")):
        return None
    return (
        f"{REOPEN}: the test part stays closed, for nothing would be new: trial {winner}, which "
        f"was tested then, still wins"
    )
