"""Trainings score what they scored, to the last digit: `tests/fixtures/digits/README.md`."""

import json
import re
import runpy
from pathlib import Path

import pytest
from helpers.records import trial_record

from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import BATCHED_ROUNDING

FOLDER = Path(__file__).parent / "fixtures" / "digits"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
MAKE = runpy.run_path(str(FOLDER / "make.py"))
MADE = json.loads((FOLDER / "trained.json").read_text(encoding="utf-8"))
ROUNDING = 1e-9 if MAKE["computer"]() == MADE["computer"] else 1e-3


@pytest.mark.parametrize("name", MAKE["STUDIES"])
def test_trainings_score_what_they_scored_to_the_last_digit(name, tmp_path, run_well):
    found, wanted = MAKE["trained"](name, tmp_path, run_well), MADE[name]
    assert [list(group) for group in found["groups"]] == wanted["groups"]
    assert bool(wanted["groups"]) is (name == "groups")
    for key in ("number", "params"):
        assert [t[key] for t in found["trials"]] == [t[key] for t in wanted["trials"]]
    scores = [[t["value"] for t in of["trials"]] + of["test"] for of in (found, wanted)]
    assert scores[0] == pytest.approx(scores[1], rel=ROUNDING, abs=0.0)


def test_the_digits_are_of_the_pinned_libraries():
    pinned = dict(re.findall(r"^(torch|numpy)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))
    assert pinned == {name: MADE["computer"][name] for name in pinned}
    assert len(pinned) == 2


@pytest.mark.parametrize(
    ("ratios", "scores", "same"),
    [
        (True, (1e-6, 1e-6 * (1 + BATCHED_ROUNDING / 2)), True),
        (True, (1e-6, 1e-6 * (1 + BATCHED_ROUNDING * 2)), False),
        (False, (BATCHED_ROUNDING / 3, -BATCHED_ROUNDING / 3), True),
        (False, (BATCHED_ROUNDING * 2, 0.0), False),
    ],
)
def test_a_score_near_0_may_differ_if_it_is_no_error(ratios, scores, same):
    outcome = Outcome(OutcomeState.COMPLETE, objective=scores[1])
    assert trial_record(0, outcome, group=(0, 1)).is_reproduced_by(scores[0], ratios=ratios) is same
    assert not trial_record(0, outcome).is_reproduced_by(scores[0], ratios=ratios)  # trained alone
