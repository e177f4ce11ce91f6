"""A search that is submitted again: whether it is the same, and what changes of the study.

A budget is only raised: several clients may follow a study, and none cuts off what others asked
for. For the same reason an option that a client leaves out stays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tuner.coordination.opening import CHANGEABLE
from tuner.experiment import Experiment, flat
from tuner.service.problems import Problem
from tuner.service.studies import Study
from tuner.service.submissions import Submission, completed

_BUDGET = ("budget.trials", "budget.timeout")  # of a search; None is no limit
_RAISED = (
    *_BUDGET,
    "budget.trial_timeout",
    "budget.retries",
    "finalists.top",
    "finalists.repeats",
)
_POPULATION = "experiment.strategy.population"  # follows the first budget unless it was given
AT_NEXT_RUN = ("priority", "max_workers", "tracking", "datasets")
"""Of a specification: with another value the search is the same, and what runs is not ended."""

_MAY_CHANGE = (*AT_NEXT_RUN, "reopen_test")


def resubmitted(study: Study, experiment: Experiment, submission: Submission) -> dict[str, Any]:
    """Return the specification of a study after its search is submitted again.

    Experiments are compared with all defaults: a key that was left out is one with its default.

    Args:
        study: as it is.
        experiment: of the study.
        submission: of the same name.

    Raises:
        Problem: 409, it is another search.
    """
    old = _flat(study.spec, experiment)
    new = _flat(submission.spec, submission.experiment)
    if "population" not in submission.experiment.strategy.model_fields_set:
        new |= {_POPULATION: old[_POPULATION]} if _POPULATION in old.keys() & new.keys() else {}
    changeable = {f"experiment.{key}" for key in CHANGEABLE if not key.startswith("data.")}
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    # Names first: with another strategy, all of its options differ as well.
    for key in sorted(changed - changeable, key=lambda key: (".name" not in key, key)):
        was, got = old.get(key, "nothing"), new.get(key, "nothing")
        name = key.removeprefix("experiment.")
        was_with = f"study {study.name!r} was submitted with {name}={was!r}"
        raise Problem(409, f"{was_with}, got {got!r}; give another name")
    changes = {key.removeprefix("experiment."): new.get(key) for key in changed}
    limits = [f"experiment.{key}" for key in _BUDGET]
    is_larger = not any(_is_less(new.get(key), old.get(key)) for key in limits)
    for key in changes.keys() & set(_RAISED):
        # A smaller budget without one of the limits takes none away: together they have no end.
        no_limit = changes[key] is None and not is_larger
        if no_limit or _is_less(changes[key], old.get(f"experiment.{key}")):
            del changes[key]
    return with_values(with_options(study.spec, submission), changes)


def with_options(spec: Mapping[str, Any], submission: Submission) -> dict[str, Any]:
    """Return a specification with the options that a submission of the same search gives."""
    given = {key: submission.spec[key] for key in submission.given & set(AT_NEXT_RUN)}
    reopens = spec["reopen_test"] or submission.spec["reopen_test"]
    return {**spec, **given, "reopen_test": reopens}


def check_raised(study: Study, before: Experiment, after: Experiment) -> None:
    """Raise a Problem, 422, if an extended search has a smaller budget than before."""
    for key in _BUDGET:
        name = key.removeprefix("budget.")
        old, new = (getattr(experiment.budget, name) for experiment in (before, after))
        if _is_less(new, old):
            has = "no limit" if old is None else f"{old:g}"
            rule = f"study {study.name!r} has {has}, and a budget is only raised, got {new:g}"
            remedy = "write a larger number, or cancel the study to end it"
            raise Problem(422, f"{name}: {rule}; {remedy}", key=name)


def with_values(spec: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification with values of its experiment, by dotted key, replaced."""
    changed = copy.deepcopy(dict(spec))
    for dotted, value in values.items():
        block, _, name = dotted.partition(".")
        raw = changed["experiment"]
        raw[block] = {**(raw.get(block) or {}), name: value}
    return changed


def _flat(spec: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Return what two submissions of one search have in common, by dotted key."""
    same = {key: value for key, value in spec.items() if key not in _MAY_CHANGE}
    return dict(flat(same | {"experiment": completed(spec, experiment)}))


def _is_less(new: float | None, old: float | None) -> bool:
    return new is not None and (old is None or new < old)
