"""The verdict in words, and what stands in the way of a better one."""

import dataclasses
import math
import re

import numpy as np
import pytest
from helpers.result_records import (
    CLASSES,
    COMPLETE,
    classes_test,
    make_experiment,
    make_outcome,
    make_study,
    make_test,
    with_default,
)
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.prepared import check_data
from tuner.data.profile import trend_of
from tuner.experiment import Experiment
from tuner.jobs import OutcomeState
from tuner.journal.records import TestScore
from tuner.metrics import METRICS
from tuner.results.advice import advice_after, advice_on_budget, advice_on_data
from tuner.results.verdict import Worth, verdict_of

BUDGET = {"trials": 40, "epochs": 100}  # more than any trial here was trained for
PLAIN = {"experiment": make_experiment(budget=BUDGET), "baselines": {}, "finalists": 5}
RMSE = make_study(3, **PLAIN)
CLASSIFIED = make_study(
    3, objective=lambda p: 0.5, **PLAIN | {"experiment": make_experiment(**CLASSES, budget=BUDGET)}
)


def default(scores, is_winner=False, name="default LSTM"):
    mean = sum(scores) / len(scores) if scores else None
    return {"name": name, "params": {}, "is_winner": is_winner, "scores": scores, "mean": mean,
            "std": None}  # fmt: skip


def opened(metric, scores, baselines, untuned=None, record=RMSE, **fields):
    mean = sum(scores) / len(scores) if scores else None
    test = make_test(baselines, mean, metric, None, 0, scores=scores, default=untuned, **fields)
    return dataclasses.replace(record, test=TestScore.from_json(test))


def judged(*args, **fields):
    return verdict_of(opened(*args, **fields))


NAIVE = {"last_value": 60.0, "seasonal_naive": 50.0, "training_mean": 200.0}
FIVE = [40.0, 41.0, 42.0, 43.0, 44.0]


@pytest.mark.parametrize(
    ("metric", "scores", "baselines", "untuned", "says", "worth"),
    [
        ("rmse", [41.0], NAIVE, default([50.0]),
         "the search paid: 18 % below the default LSTM (RMSE), and 18 % below seasonal naive",
         Worth.PAID),
        ("rmse", [41.0], {}, default([50.0]),
         "the search paid: 18 % below the default LSTM (RMSE)", Worth.PAID),
        ("rmse", FIVE, NAIVE, default([48.0, 49.0, 49.5, 48.5, 50.0], name="default GRU"),
         "the search paid: 14 % below the default GRU (RMSE), and 16 % below seasonal naive",
         Worth.PAID),
        ("rmse", FIVE, NAIVE, default([41.0, 42.0, 43.0, 44.0, 45.0]),
         "the search did not pay: within noise of the default LSTM, but 16 % below seasonal naive "
         "(RMSE)", Worth.UNPAID),
        ("rmse", [41.0], NAIVE, default([40.0]),
         "the search did not pay: no better than the default LSTM, but 18 % below seasonal naive "
         "(RMSE)", Worth.UNPAID),
        ("rmse", [41.0], {}, default([41.0]),
         "the search did not pay: equal to the default LSTM", Worth.UNPAID),
        ("rmse", [41.0], NAIVE, default([41.0], is_winner=True),
         "the search did not pay: the default LSTM won, 18 % below seasonal naive (RMSE)",
         Worth.UNPAID),
        ("rmse", [51.0], NAIVE, default([80.0]),
         "no better than seasonal naive (RMSE 51 against 50): do not use an LSTM here",
         Worth.USELESS),
        ("rmse", [50.0], NAIVE, default([80.0]),
         "equal to seasonal naive (RMSE 50): seasonal naive is as good here and simpler",
         Worth.USELESS),
        ("rmse", [30.0, 40.0, 50.0, 60.0, 65.0], NAIVE, default([80.0] * 5),
         "within noise of seasonal naive (RMSE 49 against 50): seasonal naive is as good here and "
         "simpler",
         Worth.USELESS),
        ("rmse", [46.8], NAIVE | {"linear": 15.6, "seasonal_arima": 15.7}, default([80.0]),
         "no better than linear regression (RMSE 46.8 against 15.6): do not use an LSTM here",
         Worth.USELESS),
        ("rmse", [14.0], NAIVE | {"linear": 15.6, "seasonal_arima": 15.5}, default([28.0]),
         "the search paid: 50 % below the default LSTM (RMSE), and 10 % below seasonal ARIMA",
         Worth.PAID),
        ("rmse", [41.0], NAIVE, default([]),
         "18 % below seasonal naive (RMSE); the default LSTM has no score to compare with",
         Worth.BETTER),
        ("rmse", [41.0], {}, default([]), "the default LSTM has no score to compare with",
         Worth.UNKNOWN),
        ("rmse", [10.0, 14.0, 12.0], {"linear": 12.02}, default([80.0] * 3),
         "within noise of linear regression (RMSE 12 against 12.02): linear regression is as good "
         "here and simpler", Worth.USELESS),
        ("rmse", [41.0], NAIVE, None,
         "18 % below seasonal naive (RMSE); no default was trained to compare with",
         Worth.BETTER),
        ("rmse", [41.0], {}, None, "there is nothing to compare the test score with",
         Worth.UNKNOWN),
        ("rmse", [41.0], {"last_value": math.nan, "seasonal_naive": None}, None,
         "there is nothing to compare the test score with", Worth.UNKNOWN),
        ("rmse", [], NAIVE, default([1.0]),
         "the forecasts of the test set are beyond all bounds: do not use this model",
         Worth.USELESS),
        ("rmse", [0.0], NAIVE, default([0.0]),
         "the search did not pay: equal to the default LSTM, but 100 % below seasonal naive "
         "(RMSE)", Worth.UNPAID),
        ("rmse", [0.0], {"last_value": 0.0}, None,
         "equal to last value (RMSE 0): last value is as good here and simpler", Worth.USELESS),
        ("rmse", [20.08], {"last_value": 20.084}, default([597.0]),
         "equal to last value (RMSE 20.08): last value is as good here and simpler", Worth.USELESS),
        ("rmse", [49.99], NAIVE, default([80.0]),  # 0.02 % below is not a gain
         "equal to seasonal naive (RMSE 49.99 against 50): seasonal naive is as good here and "
         "simpler",
         Worth.USELESS),
        ("rmse", [49.9], NAIVE, default([80.0]),
         "the search paid: 38 % below the default LSTM (RMSE), and 0.2 % below seasonal naive",
         Worth.PAID),
        ("r2", [0.83], {"last_value": -0.4}, default([0.71]),
         "the search paid: 0.83 against 0.71 of the default LSTM (R²), and 0.83 against -0.4 of "
         "last value", Worth.PAID),
        ("r2", [-0.5], {"last_value": -0.4}, default([-0.7]),
         "no better than last value (R² -0.5 against -0.4): do not use an LSTM here",
         Worth.USELESS),
    ],
)  # fmt: skip
def test_the_sentence_is_as_good_as_the_scores_are(metric, scores, baselines, untuned, says, worth):
    found = judged(metric, scores, baselines, untuned)
    luck = "; 1 repeat is too few to rule out luck"
    few = luck if len(scores) == 1 and worth in (Worth.PAID, Worth.BETTER) else ""
    assert (found.sentence, found.worth) == (says + few, worth)


@pytest.mark.parametrize(
    ("scores", "untuned", "luck"),
    [
        ([41.0] * 3, [50.0] * 3, "; 3 repeats are too few to rule out luck"),
        (FIVE, [60.0] * 4, "; 4 repeats are too few to rule out luck"),  # one of them failed
        (FIVE, [60.0] * 5, "seasonal naive"),
        ([41.0] * 3, [40.0] * 3, "(RMSE)"),  # nothing is claimed
    ],
)
def test_a_small_gain_over_few_repeats_may_be_luck(scores, untuned, luck):
    assert judged("rmse", scores, NAIVE, default(untuned)).sentence.endswith(luck)


def test_where_more_is_better_it_is_above():
    baselines = {"class_frequencies": 0.5}
    found = judged("accuracy", [0.9], baselines, default([0.75]), CLASSIFIED)
    assert found.sentence == (
        "the search paid: 20 % above the default LSTM (accuracy), and 80 % above majority class; 1"
        " repeat is too few to rule out luck"
    )
    found = judged("accuracy", [0.5], baselines, default([0.4]), CLASSIFIED)
    said = "equal to majority class (accuracy 0.5): majority class is as good here and simpler"
    assert found.sentence == said
    found = judged("accuracy", [0.9], {"class_frequencies": 0.01}, default([0.0]), CLASSIFIED)
    assert found.sentence == (
        "the search paid: 0.9 against 0 of the default LSTM (accuracy), and 0.9 against 0.01 of "
        "majority class; 1 repeat is too few to rule out luck"
    )


@pytest.mark.parametrize(
    ("cell", "model"),
    [("gru", "a GRU"), ("rnn", "an RNN"), ("lstm", "an LSTM"), ("peephole", "a peephole LSTM")],
)
def test_the_model_advised_against_is_the_tested_one(cell, model):
    experiment = make_experiment(hyperparameters={"cell": cell}, budget=BUDGET)
    fixed = make_study(3, **PLAIN | {"experiment": experiment})
    assert judged("rmse", [51.0], NAIVE, None, fixed).sentence.endswith(f"do not use {model} here")


def test_where_nothing_was_searched_no_search_paid():
    experiment = make_experiment(search_space={}, budget=BUDGET)
    fixed = make_study(1, **PLAIN | {"experiment": experiment})
    found = judged("rmse", [41.0], NAIVE, None, fixed)
    assert found.sentence.startswith("18 % below seasonal naive (RMSE); nothing was searched; 1 ")
    assert found.worth is Worth.BETTER


def test_before_the_test_part_is_opened_there_is_no_verdict():
    assert verdict_of(RMSE) is None


any_score = st.floats(-1e9, 1e9)
error = st.floats(0, 1e9)
metrics = st.sampled_from(sorted(METRICS))


@st.composite
def openings(draw):
    metric = draw(metrics)
    of = any_score if metric == "r2" else error
    scores = draw(st.lists(of, max_size=7))
    names = st.sampled_from(["last_value", "seasonal_naive", "training_mean", "linear"])
    plain = draw(st.dictionaries(names, of | st.none() | st.just(math.nan), max_size=3))
    untuned = draw(st.none() | st.lists(of, max_size=7).map(default))
    return metric, scores, plain, untuned


@given(openings())
def test_no_sentence_promises_what_the_scores_do_not_hold(opening):
    metric, scores, plain, untuned = opening
    found = judged(*opening)
    sign = METRICS[metric].sign
    mean = sum(scores) / len(scores) if scores else None
    finite = [s for s in plain.values() if s is not None and math.isfinite(s)]
    beaten = mean is not None and all(sign * mean < sign * s for s in finite)
    if found.worth in (Worth.PAID, Worth.UNPAID, Worth.BETTER):
        assert beaten
    if found.worth is Worth.PAID:
        assert sign * mean < sign * untuned["mean"]
    if mean is None or (finite and not beaten):
        assert found.worth is Worth.USELESS
    assert ("search paid" in found.sentence) == (found.worth is Worth.PAID)
    away = ["do not use" in found.sentence, "is as good here and simpler" in found.sentence]
    assert sum(away) == (found.worth is Worth.USELESS)
    if away[0] and mean is not None:  # worse on the test rows
        assert any(sign * mean > sign * s for s in finite)
    assert "nan" not in found.sentence
    assert "inf" not in found.sentence
    assert "\n" not in found.sentence
    assert not found.sentence.endswith(".")


@given(openings())
def test_no_share_in_a_sentence_is_nonsense(opening):
    metric, scores, _, _ = opening
    said = judged(*opening).sentence
    shares = [float(s) for s in re.findall(r"([\d.]+) % (?:below|above)", said)]
    assert all(0 <= share <= 1000 for share in shares)
    if metric == "r2":
        assert "%" not in said
    assert (" above " not in said) or METRICS[metric].maximize
    assert (" below " not in said) or not METRICS[metric].maximize
    if " below " in said:
        assert all(share <= 100 for share in shares)  # no error is below 0


@given(st.lists(error, min_size=5, max_size=7))
def test_with_enough_repeats_the_same_scores_never_pay(scores):
    found = judged("rmse", scores, {}, default(list(reversed(scores))))
    assert found.worth is Worth.UNPAID
    assert re.search("(within noise of|equal to) the default LSTM", found.sentence)


def validated(scores, untuned=(), plain=None):
    """A study whose trial 0 came to these scores when it was retrained, and the default."""
    record = make_study(1, **PLAIN)
    runs = [
        dataclasses.replace(run, outcome=make_outcome(OutcomeState.COMPLETE, score))
        for run, score in zip(record.finalists, scores, strict=True)
    ]
    record = dataclasses.replace(record, finalists=tuple(runs), baselines=plain or {})
    return with_default(record, list(untuned)) if untuned else record


TEN, TWENTY = [10.0, 10.1, 10.2, 10.3, 10.4], [20.0, 20.1, 20.2, 20.3, 20.4]


@pytest.mark.parametrize(
    ("record", "says", "worth"),
    [
        (validated(TEN, TWENTY, {"linear": 15.0}),
         "the search paid: 14 % below the default GRU (RMSE), and 16 % below seasonal naive",
         Worth.PAID),
        (validated(TEN, TWENTY, {"linear": 9.0, "last_value": 12.0}),
         "no better than linear regression on the validation rows (RMSE 10.2 against 9), though "
         "16 % below seasonal naive on the test rows: linear regression is as good here and "
         "simpler", Worth.USELESS),
        (validated(TEN, TWENTY, {"linear": 10.25}),
         "within noise of linear regression on the validation rows (RMSE 10.2 against 10.25), "
         "though 16 % below seasonal naive on the test rows: linear regression is as good here and "
         "simpler",
         Worth.USELESS),
        (validated(TEN, [9.0, 9.1, 9.2, 9.3, 9.4], {"linear": 15.0}),
         "the search did not pay: no better than the default GRU on the validation rows, but "
         "16 % below seasonal naive (RMSE)", Worth.UNPAID),
        (validated(TEN, [s + 0.05 for s in TEN], {"linear": 15.0}),
         "the search did not pay: within noise of the default GRU on the validation rows, but "
         "16 % below seasonal naive (RMSE)", Worth.UNPAID),
    ],
)  # fmt: skip
def test_a_search_pays_only_on_validation_and_test_rows(record, says, worth):
    untuned = default([48.0, 49.0, 49.5, 48.5, 50.0], name="default GRU")
    found = judged("rmse", FIVE, NAIVE, untuned, record)
    assert (found.sentence, found.worth) == (says, worth)


def test_refitted_models_are_judged_by_their_scores():
    untuned = default([48.0, 49.0, 49.5, 48.5, 50.0])
    refit = {
        "scores": [30.0, 31.0, 32.0, 33.0, 34.0], "mean": 32.0, "std": None,
        "default": default([40.0, 41.0, 42.0, 43.0, 44.0]), "baselines": {"linear": 29.0},
    }  # fmt: skip
    assert judged("rmse", FIVE, NAIVE, untuned).worth is Worth.PAID
    found = judged("rmse", FIVE, NAIVE, untuned, refit=refit)
    assert found.sentence == (
        "no better than linear regression (RMSE 32 against 29): do not use an LSTM here"
    )
    better = refit | {"baselines": {"linear": 64.0}}
    assert judged("rmse", FIVE, NAIVE, untuned, refit=better).sentence == (
        "the search paid: 24 % below the default LSTM (RMSE), and 50 % below linear regression"
    )
    nothing = refit | {"scores": [], "mean": None}
    assert judged("rmse", FIVE, NAIVE, untuned, refit=nothing).worth is Worth.USELESS
    failed = {"failed": "it diverged"}
    assert judged("rmse", FIVE, NAIVE, untuned, refit=failed).worth is Worth.PAID


def test_what_stands_in_the_way_is_to_blame_before_the_model_is():
    remark = {"key": "data.transform", "text": "y has a trend", "blocks": True}
    record = dataclasses.replace(RMSE, remarks=(remark,))
    found = judged("rmse", [51.0], NAIVE, None, record)
    assert found.worth is Worth.USELESS
    assert found.sentence.endswith(": change data.transform before you judge an LSTM")
    few = make_study(3, **PLAIN | {"experiment": make_experiment()})  # the best epoch is the last
    assert judged("rmse", [51.0], NAIVE, None, few).sentence.endswith(
        ": change budget.epochs before you judge an LSTM"
    )


REFIT = {"scores": [30.0, 31.0, 32.0, 33.0, 34.0], "mean": 32.0, "std": None, "baselines": NAIVE}


@pytest.mark.parametrize(
    ("untuned", "of_validation", "refit", "says", "worth"),
    [
        # One failed refit of the default, or one absurd forecast, leaves it without test scores.
        (default([60.0] * 5), TWENTY, True,
         "the search paid: 30 % below the default LSTM before the refit (RMSE), and 36 % below "
         "seasonal naive", Worth.PAID),
        (default([30.0] * 5), TWENTY, True,
         "the search did not pay: no better than the default LSTM before the refit, but 36 % below "
         "seasonal naive (RMSE)", Worth.UNPAID),
        (default([60.0] * 5), [9.0, 9.1, 9.2, 9.3, 9.4], True,
         "the search did not pay: no better than the default LSTM on the validation rows, but "
         "36 % below seasonal naive (RMSE)", Worth.UNPAID),
        (default([]), [9.0, 9.1, 9.2, 9.3, 9.4], False,
         "the search did not pay: no better than the default LSTM on the validation rows, but "
         "16 % below seasonal naive (RMSE)", Worth.UNPAID),
        (default([]), TWENTY, False,
         "the search paid: 50 % below the default LSTM on the validation rows (RMSE), and 16 % "
         "below seasonal naive", Worth.PAID),
        (default([]), [None] * 5, False,
         "the search paid: every training of the default LSTM failed; 16 % below seasonal naive "
         "(RMSE)", Worth.PAID),
    ],
)  # fmt: skip
def test_an_untested_default_is_compared_by_validation(untuned, of_validation, refit, says, worth):
    fields = {"refit": REFIT | {"default": default([])}} if refit else {}
    record = validated(TEN, of_validation, {"linear": 15.0})
    plain = {"seasonal_naive": 50.0}
    found = judged("rmse", FIVE, plain, untuned, record, **fields)
    assert (found.sentence, found.worth) == (says, worth)


def test_after_raised_repeats_the_verdict_names_the_way_out():
    raised = dataclasses.replace(validated(TEN, TWENTY, {"linear": 15.0}), raised=True)
    untuned, few = default([60.0] * 3), "; 3 repeats are too few to rule out luck"

    def said(record):
        found = judged("rmse", [41.0, 42.0, 43.0], NAIVE, untuned, record)
        assert found.worth is Worth.PAID
        return found.sentence

    assert said(raised).endswith(f"{few}: tuner run with --reopen-test evaluates all 5")
    assert said(dataclasses.replace(raised, raised=False)).endswith(few)
    three = tuple(r for r in raised.finalists if r.repeat < 3)
    assert said(dataclasses.replace(raised, finalists=three)).endswith(few)


def test_a_model_worse_on_test_rows_is_not_recommended():
    record = validated(TEN, TWENTY, {"linear": 15.0})
    found = judged("rmse", FIVE, {"linear": 20.0}, default([60.0] * 5), record)
    assert found.sentence.endswith("(RMSE 42 against 20): do not use an LSTM here")


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
LATE = STEADY + 50 * (np.arange(200) > 175)  # in the test set alone: that is not looked at


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
    assert "outside of the range of the training set (103" in advice.text
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
    study = dataclasses.replace(study, test=TestScore.from_json(test | {"predictions": one}))
    (advice,) = advice_after(study)
    assert (advice.key, advice.blocks) == (key, True)
    assert "every prediction of the test set is 'b'" in advice.text


def test_a_study_without_trials_is_limited_by_its_budget_alone():
    assert advice_after(make_study(0, experiment=make_experiment(**QUIET))) == []
