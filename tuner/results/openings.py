"""How often the test part was opened, and what that makes of its score: in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.coordination.finalists import default_of
from tuner.coordination.records import StudyRecord
from tuner.results.winner import Winner, find_winner

__all__ = ["REOPEN", "opened_in_words", "stays_closed", "why_not_again"]

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
    if record.best is not None and (since := _since(record)):
        winner = find_winner(record)
        if not winner.was_tested(test) and winner.is_default and test.get("default"):
            said.append(
                f"{since}, and {_of(winner)} won, which was tested beside another configuration: "
                f"tuner run with {REOPEN} has it judged."
            )
        elif not winner.was_tested(test):
            said.append(
                f"{since}, and {_of(winner)} won, which has no test score: tuner run with {REOPEN} "
                f"opens the test part again."
            )
        elif len(winner.runs) > _tested(test):
            said.append(
                f"{since}, and the same configuration won: its score stands, of its first "
                f"{_tested(test)} trainings."
            )
        else:
            said.append(f"{since}, and the same configuration won: its score stands.")
    return said


def why_not_again(record: StudyRecord) -> str | None:
    """Return why another opening would say nothing new; None where it would, or is the first."""
    test = record.test
    if test is None:
        return None
    winner = find_winner(record)
    if not winner.was_tested(test) or len(winner.runs) > _tested(test):
        return None
    if default_of(record) and not test.get("default"):
        return None
    stays = f"{REOPEN}: the test part stays closed, for nothing would be new"
    if test["after_trials"] >= len(record.trained) and not record.raised:
        return f"{stays}: no trial was trained since it was opened"
    return f"{stays}: {_of(winner)}, which was tested then, still wins"


def stays_closed(record: StudyRecord) -> str:
    """Say, of a study that has been trained further, that its test part is not opened again."""
    opened = opened_in_words(record)[0]
    again = "" if why_not_again(record) else f"; {REOPEN} opens it again"
    return f"no new test score: {opened[:1].lower()}{opened[1:-1]}{again}"


def _since(record: StudyRecord) -> str | None:
    """Say what was trained since the test part was opened; None for nothing."""
    test, settings = record.test, record.experiment.finalists
    assert test is not None
    if test["after_trials"] < len(record.trained):
        return f"The search has gone on since, to {len(record.trained):,} trials"
    if record.raised and (test.get("finalists") != [settings.top, settings.repeats]):
        repeats = f"{settings.repeats} seed{'s' * (settings.repeats != 1)}"
        return f"The best {settings.top} have been retrained on {repeats} since"
    if not find_winner(record).was_tested(test):
        return "The untuned default counts as a finalist since"
    return None


def _tested(test: Mapping[str, Any]) -> int:
    """Return how many models of the configuration were tested."""
    return int(test.get("repeats", len(test["scores"])))


def _of(winner: Winner) -> str:
    return winner.name if winner.trial is not None else f"the {winner.name}"
