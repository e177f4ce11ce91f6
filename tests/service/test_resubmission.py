"""A search that is submitted again: what is the same, and what a submission may change."""

import pytest

from tuner.experiment import Experiment
from tuner.service.access import Owner
from tuner.service.problems import Problem
from tuner.service.resubmission import check_raised, resubmitted, with_values
from tuner.service.settings import Settings
from tuner.service.studies import Facts, Kind, Study
from tuner.service.submissions import SubmissionBody, load_experiment, parse_submission

SHA, OTHER = "ab" * 32, "cd" * 32
SPACE = {"hidden_size": {"type": "int", "low": 4, "high": 64}}
SMALL = {"name": "air", "data": {"path": f"dataset:{SHA}", "target": "y"}, "search_space": SPACE}


@pytest.fixture
def submit(tmp_path):
    """Returns the submission of an experiment with changed blocks."""

    class Uploaded:
        def path_of(self, owner, dataset):
            return tmp_path / owner / dataset / "air.csv"

    def call(raw=SMALL, *, body=(), **blocks):
        given = SubmissionBody.model_validate({"experiment": {**raw, **blocks}, **dict(body)})
        return parse_submission(given, Owner("ana"), Uploaded(), Settings(root=tmp_path))

    call.uploaded = Uploaded()
    return call


@pytest.fixture
def again(submit):
    """Submits a search after another one; returns what the study has then."""

    def call(first, second):
        facts = Facts("air", "tpe", 0, "rmse", "minimize", 40)
        study = Study("ana", "air-tpe-0", Kind.SEARCH, 1, "", first.spec, facts)
        experiment = load_experiment(first.spec, "ana", submit.uploaded)
        return resubmitted(study, experiment, second)

    return call


def test_a_key_with_its_default_is_one_that_is_left_out(submit, again):
    small = submit()
    whole = Experiment.from_dict(SMALL).to_dict()
    whole["data"]["path"] = f"dataset:{SHA}"
    defaults = {"priority": 0, "max_workers": None, "tracking": True, "test": True, "from": []}
    complete = submit(whole, body=defaults)
    assert complete.spec["experiment"] != small.spec["experiment"]
    assert again(small, complete) == small.spec
    assert again(complete, small) == complete.spec


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"asynchronous": True}, "asynchronous=False, got True"),
        ({"seed": 1}, "seed=0, got 1"),
        ({"strategy": {"name": "random"}}, "strategy.name='tpe', got 'random'"),
        ({"data": {"path": f"dataset:{OTHER}", "target": "y"}}, f"data.path='dataset:{SHA}'"),
        ({"body": {"test": False}}, "test=True, got False"),
        ({"body": {"from": ["other"]}}, r"from=\[\], got \['other'\]"),
    ],
    ids=str,
)
def test_another_search_is_refused_with_both_values(submit, again, change, told):
    with pytest.raises(Problem, match=told) as refused:
        again(submit(), submit(**change))
    assert refused.value.status == 409


RAISED = {
    "more trials": ({"budget": {"trials": 50}}, {"budget": {"trials": 60}}, True),
    "fewer trials": ({"budget": {"trials": 50}}, {}, False),
    "a limit of time": ({}, {"budget": {"timeout": "5m"}}, False),
    "more time": ({"budget": {"timeout": "5m"}}, {"budget": {"timeout": "6m"}}, True),
    "less time": ({"budget": {"timeout": "5m"}}, {"budget": {"timeout": 299}}, False),
    "no limit of time": ({"budget": {"timeout": "5m"}}, {}, True),
    "more finalists": ({}, {"finalists": {"top": 4}}, True),
    "fewer repeats": ({}, {"finalists": {"repeats": 1}}, False),
    "fewer retries": ({}, {"budget": {"retries": 0}}, False),
    "more retries": ({}, {"budget": {"retries": 3}}, True),
    "less time of a trial": ({}, {"budget": {"trial_timeout": 5}}, False),
    "more time of a trial": (
        {"budget": {"trial_timeout": 5}},
        {"budget": {"trial_timeout": 6}},
        True,
    ),
    "fewer trials, no limit of time": (
        {"budget": {"trials": 50, "timeout": 60, "trial_timeout": 5}},
        {"budget": {"trials": 40}},
        False,
    ),
    "a limit of trials for one of time": (
        {"budget": {"trials": None, "timeout": 60}},
        {"budget": {"trials": 50}},
        False,
    ),
    "a limit of time for one of trials": (
        {"budget": {"trials": 50}},
        {"budget": {"trials": None, "timeout": 60}},
        False,
    ),
    "no limit at all": (
        {"budget": {"trials": None, "timeout": 60}},
        {"budget": {"trials": None}},
        True,
    ),
    "other resources": ({}, {"resources": {"cpus": 2}}, True),  # no budget
}


@pytest.mark.parametrize("what", RAISED)
def test_a_submission_raises_a_budget_and_lowers_none(submit, again, what):
    first, second, changes = RAISED[what]
    before, after = submit(**first), submit(**second)
    spec = again(before, after)
    assert (spec != before.spec) is changes
    if changes:
        assert load_experiment(spec, "ana", submit.uploaded) == after.experiment


def test_a_population_follows_the_first_budget(submit, again):
    pso = {"strategy": {"name": "pso"}}
    first, second = (submit(**pso, budget={"trials": n}) for n in (12, 60))
    populations = [each.experiment.strategy.population for each in (first, second)]
    assert populations[0] != populations[1]
    assert again(first, second)["experiment"]["budget"] == {"trials": 60}
    with pytest.raises(Problem, match="strategy.population"):
        again(first, submit(strategy={"name": "pso", "population": 5}))


OPTIONS = {"priority": 3, "max_workers": 2, "tracking": False, "reopen_test": True}


def test_the_newest_options_of_a_submission_count(submit, again):
    first = submit()
    spec = again(first, submit(body=OPTIONS))
    assert spec == first.spec | OPTIONS
    defaults = {"priority": 0, "max_workers": None, "tracking": True, "reopen_test": False}
    assert again(submit(body=OPTIONS), submit(body=defaults)) == spec | {
        **defaults,
        "reopen_test": True,  # somebody asked for it
    }


def test_options_that_are_left_out_stay(submit, again):
    first = submit(body=OPTIONS | {"datasets": {"air.csv": SHA}})
    assert again(first, submit(budget={"trials": 2})) == first.spec


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"trials": 40}, {"trials": 39}, "trials: study 'air-tpe-0' has 40, .* got 39; .* cancel"),
        ({"timeout": None}, {"timeout": 60}, "timeout: .* has no limit, .* got 60"),
        ({"timeout": 60}, {"timeout": 59.5}, "timeout: .* has 60, .* got 59.5"),
        ({"timeout": 60}, {"timeout": None}, None),
        ({"trials": 40}, {"trials": 40}, None),
    ],
)
def test_an_extension_lowers_nothing(submit, before, after, told):
    first = submit(budget=before)
    study = Study("ana", "air-tpe-0", Kind.SEARCH, 1, "", first.spec, None)
    changed = submit(budget={**before, **after}).experiment
    if told is None:
        check_raised(study, first.experiment, changed)
        return
    with pytest.raises(Problem, match=told) as refused:
        check_raised(study, first.experiment, changed)
    assert refused.value.status == 422


def test_values_are_written_into_a_copy(submit):
    spec = submit(budget={"epochs": 5}).spec
    changed = with_values(spec, {"budget.trials": 7, "finalists.top": 1})
    assert changed["experiment"]["budget"] == {"epochs": 5, "trials": 7}
    assert changed["experiment"]["finalists"] == {"top": 1}
    assert spec["experiment"]["budget"] == {"epochs": 5}
