"""What stands in the way of a search, and the key that changes it."""

import dataclasses

import numpy as np
import pytest
from helpers.result_records import (
    CLASSES,
    COMPLETE,
    classes_test,
    make_experiment,
    make_outcome,
    make_study,
)

from tuner.data.prepared import check_data
from tuner.data.profile import trend_of
from tuner.experiment import Experiment
from tuner.results.advice import advice_after, advice_on_budget, advice_on_data

RNG = np.random.default_rng(0)


def series(folder, values, **keys):
    path = folder / "made.csv"
    days = np.arange("2020-01-01", len(values), dtype="datetime64[D]").astype(str)
    rows = [f"{d},{v}" for d, v in zip(days, values, strict=True)]
    path.write_text("\n".join(["t,y", *rows]) + "\n")
    data = {"path": str(path), "time": "t", "target": "y", **keys.pop("data", {})}
    task = {"kind": "forecast", "window": 4}
    return Experiment.model_validate({"name": "made", "data": data, "task": task, **keys})


def keys(advice):
    return [one.key for one in advice]


RISING = 100 + np.arange(200.0) + RNG.normal(size=200)
STEADY = 100 + RNG.normal(size=200)
WEEKLY = STEADY + 30 * (np.arange(200) % 7)  # a season is no trend
LIFTED = STEADY + 50 * (np.arange(200) > 125)  # above all that is trained on, in validation
LATE = STEADY + 50 * (np.arange(200) > 175)  # in the test part alone: that is not looked at


@pytest.mark.parametrize(
    ("values", "moves"),
    [(RISING, True), (-RISING, True), (LIFTED, True), (STEADY, False), (WEEKLY, False),
     (LATE, False)],
)  # fmt: skip
def test_a_trend_is_a_level_that_moves_before_the_test_part(tmp_path, values, moves):
    experiment = series(tmp_path, values)
    facts = check_data(experiment).facts
    assert bool(facts.trends) == moves
    assert bool(advice_on_data(experiment, facts)) == moves


def test_the_line_about_a_trend_says_how_far_and_which_key(tmp_path):
    experiment = series(tmp_path, RISING)
    (advice,) = advice_on_data(experiment, check_data(experiment).facts)
    assert advice.key in ("hyperparameters.normalize", "data.transform")
    assert advice.blocks
    assert "y has a trend that nothing takes out" in advice.text
    assert "outside of what is trained on (103" in advice.text
    assert "difference" in advice.text


@pytest.mark.parametrize("transform", ["difference", "log"])
def test_a_difference_takes_a_trend_out_and_a_logarithm_does_not(tmp_path, transform):
    experiment = series(tmp_path, RISING, data={"transform": transform})
    found = advice_on_data(experiment, check_data(experiment).facts)
    assert (not found) == (transform == "difference")


def test_a_trend_is_that_of_each_series():
    still, moving = STEADY, RISING
    found = trend_of("y", None, [("a", still[:100], still), ("b", moving[:100], moving),
                                 ("c", moving[:100], moving)])  # fmt: skip
    assert (found.series, found.others) == ("b", 1)
    assert trend_of("y", None, [("a", still[:100], still), ("b", still[:5], still[:9])]) is None


SPACE = {"dropout": {"type": "float", "low": 0.0, "high": 0.5}}


def planned(**keys):
    return make_experiment(**{"search_space": SPACE, "strategy": {"name": "tpe"}, **keys})


@pytest.mark.parametrize(
    ("pruner", "budget", "key"),
    [
        ({"name": "none"}, {"trials": 1, "epochs": 1}, None),
        ({"name": "median"}, {"trials": 40, "epochs": 100}, None),
        ({"name": "median"}, {"trials": 40, "epochs": 10}, "pruner.n_warmup_steps"),
        ({"name": "median"}, {"trials": 40, "epochs": 11}, None),
        ({"name": "percentile"}, {"trials": 13, "epochs": 100}, "pruner.n_startup_trials"),
        ({"name": "percentile"}, {"trials": 14, "epochs": 100}, None),  # the last sees ten
        ({"name": "successive_halving", "min_resource": 20}, {"trials": 40, "epochs": 20},
         "pruner.min_resource"),
        ({"name": "successive_halving", "min_resource": 20}, {"trials": 40, "epochs": 21}, None),
        ({"name": "hyperband", "min_resource": 9}, {"trials": 40, "epochs": 9},
         "pruner.min_resource"),
        ({"name": "patient", "patience": 5, "wrapped": {"name": "none"}},
         {"trials": 40, "epochs": 6}, "pruner.patience"),
        ({"name": "patient", "patience": 5, "wrapped": {"name": "median"}},
         {"trials": 40, "epochs": 8}, "pruner.wrapped.n_warmup_steps"),
    ],
)  # fmt: skip
def test_a_pruner_that_can_never_act_is_named_with_what_keeps_it(pruner, budget, key):
    experiment = planned(pruner=pruner, budget=budget, strategy={"name": "random"})
    assert keys(advice_on_budget(experiment)) == ([] if key is None else [key])


def test_wilcoxons_test_needs_folds_enough():
    def with_folds(n):
        data = {"path": "/d.csv", "target": "y", "split": {"validation": {"folds": n, "size": 0.1}}}
        return planned(pruner={"name": "wilcoxon"}, data=data)

    assert keys(advice_on_budget(with_folds(4))) == ["pruner.p_threshold"]  # 1/8 is above 0.1
    assert not advice_on_budget(with_folds(5))


@pytest.mark.parametrize(
    ("strategy", "trials", "key"),
    [
        ({"name": "woa", "population": 10}, 10, "budget.trials"),
        ({"name": "woa", "population": 10}, 11, None),
        ({"name": "cmaes", "population": 6}, 5, "budget.trials"),
        ({"name": "tpe"}, 10, "strategy.n_startup_trials"),
        ({"name": "tpe"}, 11, None),
        ({"name": "random"}, 1, None),
    ],
)
def test_a_strategy_that_stays_random_is_warned_about(strategy, trials, key):
    experiment = planned(
        strategy=strategy, budget={"trials": trials, "epochs": 9}, pruner={"name": "none"}
    )
    assert keys(advice_on_budget(experiment)) == ([] if key is None else [key])


QUIET = {"search_space": SPACE, "strategy": {"name": "random"}, "pruner": {"name": "none"}}


def test_a_best_epoch_that_is_the_last_one_asks_for_more_of_them():
    at_end = make_study(5, experiment=make_experiment(**QUIET, budget={"epochs": 6}), finalists=3)
    (advice,) = advice_after(at_end)
    assert (advice.key, advice.blocks) == ("budget.epochs", True)
    assert "in 3 of its 3 trainings the best epoch is the last one, 6" in advice.text
    enough = make_study(5, experiment=make_experiment(**QUIET, budget={"epochs": 7}), finalists=3)
    assert advice_after(enough) == []


def test_with_folds_it_is_the_last_epoch_of_the_last_fold():
    data = {"path": "/d.csv", "target": "y", "split": {"validation": {"folds": 3, "size": 0.1}}}
    study = make_study(3, experiment=make_experiment(**QUIET, data=data, budget={"epochs": 6}))
    assert keys(advice_after(study)) == ["budget.epochs"]
    longer = make_outcome(COMPLETE, 1.0, n_folds=3)
    earlier = dataclasses.replace(longer, best_epoch=len(longer.history) - 2)
    trials = tuple(dataclasses.replace(t, outcome=earlier) for t in study.trials)
    assert advice_after(dataclasses.replace(study, trials=trials)) == []


@pytest.mark.parametrize(
    ("fixed", "key"),
    [({}, "hyperparameters.class_weights"), ({"class_weights": "balanced"}, "objective.metric")],
)
def test_predictions_that_are_all_of_one_class_are_named(fixed, key):
    experiment = make_experiment(**QUIET | CLASSES, budget={"epochs": 99}, hyperparameters=fixed)
    test = classes_test()
    study = make_study(3, experiment=experiment, objective=lambda p: 0.5, test=test)
    assert advice_after(study) == []
    one = test["predictions"] | {"confusion": [[0, 7, 0], [0, 9, 0], [0, 2, 0]]}
    study = dataclasses.replace(study, test=test | {"predictions": one})
    (advice,) = advice_after(study)
    assert (advice.key, advice.blocks) == (key, True)
    assert "every prediction of the test part is 'b'" in advice.text


def test_a_study_without_trials_is_limited_by_its_budget_alone():
    assert advice_after(make_study(0, experiment=make_experiment(**QUIET))) == []
