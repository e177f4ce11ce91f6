"""Studies made by hand, of any size, for what is drawn and written about them."""

from __future__ import annotations

import dataclasses
import functools
import math
import random

from helpers.records import study_record, trial_record
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import StudyRecord, TestScore, TrialRecord
from tuner.journal.storage import Role
from tuner.report.page import draw_all

SPACE = {
    "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
    "num_layers": {"type": "int", "low": 1, "high": 3},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "learning_rate": {"type": "float", "low": 0.0005, "high": 0.02, "log": True},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32, 64]},
    "bidirectional": {"type": "categorical", "choices": [True, False]},
}
COMPLETE, PRUNED, FAILED = OutcomeState.COMPLETE, OutcomeState.PRUNED, OutcomeState.FAILED
RUNNING = None


def make_experiment(**keys) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "made",
            "data": {"path": "/nowhere/made.csv", "target": "y"},
            "search_space": SPACE,
            "strategy": {"name": "pso", "population": 5},
            "budget": {"trials": 40, "epochs": 6},
            **keys,
        }
    )


def make_outcome(state, objective, *, epochs=6, n_folds=1, reason=None) -> Outcome:
    """A curve that falls to the objective; that of a later fold ends higher."""
    history = []
    for fold in range(n_folds):
        for i in range(epochs):
            last = i == epochs - 1 and n_folds > 1
            value = objective + 2 / (1 + i) - 2 / epochs + fold - (n_folds - 1) / 2
            end = 1.7e9 + len(history)
            history.append(Epoch(len(history), 1.0, 1.0, value, end, fold, value if last else None))
    complete = state is COMPLETE
    return Outcome(
        state,
        objective=objective if complete else None,
        best_epoch=len(history) - 1 if complete else None,
        history=() if state is FAILED else tuple(history),
        reason=reason or ("it diverged: val_loss is nan" if state is FAILED else None),
        seconds=1.0,
        finished_at=1.7e9,
    )


def make_params(experiment, rng) -> dict:
    params = {}
    for name, domain in experiment.search_space.items():
        if domain.type == "categorical":
            params[name] = rng.choice(domain.choices)
            continue
        low, high = (math.log(b) if domain.log else b for b in domain.bounds())
        value = low + rng.random() * (high - low)
        value = math.exp(value) if domain.log else value
        params[name] = round(value) if domain.type == "int" else value
    return params


def objective_of(params) -> float:
    """Learning rate decides, dropout helps, the rest does nothing."""
    distance = abs(math.log(params.get("learning_rate", 0.004) / 0.004))
    return 20 + 3 * distance + 2 * params.get("dropout", 0.2)


def make_study(n=40, *, state=None, objective=objective_of, finalists=0, **fields) -> StudyRecord:
    """A study of n trials.

    `state` gives a trial's by its number: by default every fifth was pruned, every ninth failed.
    """
    experiment = fields.pop("experiment", None) or make_experiment()
    rng = random.Random(0)

    def usual(number):
        return PRUNED if number % 5 == 4 else FAILED if number % 9 == 8 else COMPLETE

    size = getattr(experiment.strategy, "population", None)
    trials = []
    for number in range(n):
        params = make_params(experiment, rng)
        ended = (state or usual)(number)
        outcome = None
        if ended is not RUNNING:
            outcome = make_outcome(ended, objective(params), n_folds=experiment.n_folds)
        place = {"generation": number // size, "individual": number % size} if size else {}
        trials.append(trial_record(number, outcome, params=params, **place))
    tests = (*fields.pop("earlier_tests", ()), fields.pop("test", None))
    tests = [TestScore.from_json(test) if isinstance(test, dict) else test for test in tests]
    known = {
        "id": "0123456789abcdef",
        "name": "made-pso-0",
        "data": {"sha256": "ab" * 32, "rows": 200, "path": "/nowhere/made.csv"},
        "baselines": {"last_value": 26.0, "seasonal_naive": 25.0},
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "created": "2026-01-02T03:04:05+00:00",
        "earlier_tests": tuple(tests[:-1]),
        "test": tests[-1],
        "ended": "done",
    }
    record = study_record(experiment, trials, **known | fields)
    if finalists:
        record = dataclasses.replace(record, finalists=retrain(record, finalists))
    return record


def retrain(record, repeats) -> tuple[TrialRecord, ...]:
    """Retrainings of the best configurations, each a little worse than in the search."""
    best = record.ranked()[: record.experiment.finalists.top]
    return tuple(
        trial_record(
            number,
            make_outcome(COMPLETE, trial.value + record.sign * 0.1 * (1 + repeat)),
            role=Role.FINALIST,
            params=trial.params,
            seed=1000 + number,
            configuration=trial.number,
            repeat=repeat,
        )
        for number, (trial, repeat) in enumerate((t, r) for t in best for r in range(repeats))
    )


def with_default(record, scores, tested=None):
    """The record with trainings of the untuned default; `tested` are its scores on the test."""
    trained = tuple(
        trial_record(
            len(record.finalists) + repeat,
            make_outcome(FAILED if score is None else COMPLETE, score or 0.0),
            role=Role.BASELINE,
            params={"hidden_size": 32, "dropout": 0.0},
            seed=2000 + repeat,
            repeat=repeat,
        )
        for repeat, score in enumerate(scores)
    )
    changed = {"finalists": (*record.finalists, *trained)}
    if record.test is not None and tested is not None:
        mean = sum(tested) / len(tested) if tested else None
        default = {"name": "default LSTM", "params": {}, "is_winner": False, "scores": tested,
                   "mean": mean, "std": None}  # fmt: skip
        changed["test"] = TestScore.from_json(record.test.raw | {"default": default})
    return dataclasses.replace(record, **changed)


def values_test(n=30, *, every=1, horizon=1, series=None, at=None, configuration=0, **fields):
    """The record of an evaluation on the test set, with predictions of values."""
    truth = [10.0 + (i % 12) for i in range(n)]
    predictions = {
        "kind": "values",
        "target": "y",
        "horizon": horizon,
        "models": 3,
        "total": n * every,
        "every": every,
        "at": at or [f"2026-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(n)],
        "truth": truth,
        "predicted": [v + 0.5 for v in truth],
        "lower": [v - 0.5 for v in truth],
        "upper": [v + 1.5 for v in truth],
        "band": "range of 3 models",
        "baselines": {"last_value": [v - 1.0 for v in truth]},
    }
    if series:
        predictions["series"] = series
    return make_test({"last_value": 1.0}, 0.5, "rmse", predictions, configuration, **fields)


def changed_test(**changes):
    test = values_test()
    return test | {"predictions": test["predictions"] | changes}


def classes_test(names=("a", "b", "c"), **fields):
    n = len(names)
    confusion = [[7 if i == j else 1 for j in range(n)] for i in range(n)]
    predictions = {
        "kind": "classes",
        "models": 1,
        "total": 7 * n + n * (n - 1),
        "classes": list(names),
        "confusion": confusion,
    }
    return make_test({"class_frequencies": 0.3}, 0.7, "accuracy", predictions, 0, **fields)


def make_test(baselines, mean, metric, predictions, configuration, **fields):
    return {
        "opened_at": "2026-01-02T04:00:00+00:00",
        "after_trials": 36,
        "configuration": configuration,
        "metric": metric,
        "scores": [mean],
        "mean": mean,
        "std": None,
        "rows": 30,
        "from": None,
        "to": None,
        "season": None,
        "baselines": baselines,
        "predictions": predictions,
        **fields,
    }


CLASSES = {"task": {"kind": "classify"}, "data": {"path": "/d.csv", "id": "i", "target": "y"}}


def classes_study(**fields):
    return make_study(
        experiment=make_experiment(**CLASSES), objective=lambda p: 1 / objective(p), **fields
    )


def objective(params):
    return 2 + params["dropout"]


STUDIES = {
    "usual": lambda: make_study(finalists=3, test=values_test()),
    "default": lambda: with_default(
        make_study(finalists=5, test=values_test()), [26.0, 27.0, 26.5, 25.5, 25.0], [0.6]
    ),
    "default failed": lambda: with_default(
        make_study(finalists=3, test=values_test()), [None, None, None], []
    ),
    "reopened": lambda: make_study(
        earlier_tests=(values_test() | {"after_trials": 20},),
        test=values_test() | {"opened_at": "2026-01-03T04:00:00+00:00"},
    ),
    "no trial": lambda: make_study(0),
    "one trial": lambda: make_study(1),
    "all failed": lambda: make_study(12, state=lambda n: FAILED),
    "all pruned": lambda: make_study(12, state=lambda n: PRUNED),
    "running": lambda: make_study(12, state=lambda n: COMPLETE if n < 7 else RUNNING, ended=None),
    "no number of trials": lambda: make_study(
        12,
        experiment=make_experiment(budget={"trials": None, "stagnation": 2, "epochs": 6}),
        ended="interrupted",
    ),
    "constant": lambda: make_study(objective=lambda p: 3.0),
    "zero": lambda: make_study(objective=lambda p: 0.0),
    "negative": lambda: make_study(objective=lambda p: -objective(p)),
    "infinite": lambda: make_study(
        objective=lambda p: math.inf if p["dropout"] > 0.4 else objective(p)
    ),
    "nothing searched": lambda: make_study(1, experiment=make_experiment(search_space={})),
    "one value": lambda: make_study(
        experiment=make_experiment(
            search_space={"dropout": {"type": "categorical", "choices": [0.1]}}
        )
    ),
    "one parameter": lambda: make_study(
        experiment=make_experiment(search_space={"dropout": SPACE["dropout"]})
    ),
    "folds": lambda: make_study(
        experiment=make_experiment(
            data={
                "path": "/d.csv",
                "target": "y",
                "split": {"validation": {"folds": 3, "size": 0.1}},
            }
        )
    ),
    "no generations": lambda: make_study(experiment=make_experiment(strategy={"name": "tpe"})),
    "classes": lambda: classes_study(test=classes_test()),
    "forty classes": lambda: classes_study(
        test=classes_test([f"class number {i}" for i in range(40)])
    ),
    "several series": lambda: make_study(
        test=values_test(
            series=[i // 5 for i in range(30)], at=[f"shop {i // 5} {2020 + i}" for i in range(30)]
        )
    ),
    "rows": lambda: make_study(test=values_test(at=[str(80 + i) for i in range(30)])),
    "no predictions": lambda: make_study(test=values_test() | {"predictions": None}),
    "absurd": lambda: make_study(test=changed_test(predicted=[1e300, None] * 15)),
    "nothing finite": lambda: make_study(test=changed_test(predicted=[None] * 30)),
    "values of sequences": lambda: make_study(
        experiment=make_experiment(**CLASSES | {"task": {"kind": "regress"}}),
        test=changed_test(at=[f"id {i}" for i in range(30)]),
    ),
    "one prediction": lambda: make_study(test=values_test(1)),
    "strange names": lambda: make_study(
        test=classes_test(["$x$ $", "\N{PILE OF POO}\N{CJK UNIFIED IDEOGRAPH-6F22}", "<b>&"])
    ),
}


@functools.cache
def pictures_of(name):
    """The pictures of one of them, drawn once for all tests."""
    return tuple(draw_all(STUDIES[name]()))
