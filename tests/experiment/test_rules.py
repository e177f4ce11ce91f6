# ruff: noqa: E501
"""Rules between keys of an experiment, and of its preparation."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.finalists import canonical, untuned
from tuner.errors import ExperimentError, InputError
from tuner.experiment import Experiment, dump_yaml
from tuner.experiment.space import text_of, value_of
from tuner.metrics import METRICS

FORECAST = {"data": {"path": "d.csv", "target": "y"}}
CLASSIFY = {"data": {"path": "d.csv", "target": "y", "id": "i"}, "task": {"kind": "classify"}}
LABEL = CLASSIFY | {"task": {"kind": "label"}}
TRANSLATE = {"data": {"path": "d.csv", "target": "y", "text": "t"}, "task": {"kind": "translate"}}
STEPS = CLASSIFY | {"task": {"kind": "regress_steps"}}
REGRESS = CLASSIFY | {"task": {"kind": "regress"}}
TEXT = {"data": {"path": "d.csv", "target": "y", "text": "t"}, "task": {"kind": "classify"}}


def load(tmp_path, base, **changes):
    raw = {"name": "e", **base}
    for key, value in changes.items():
        block, _, name = key.partition("__")
        raw = raw | {block: {**raw.get(block, {}), name: value} if name else value}
    path = tmp_path / "e.yaml"
    path.write_text(dump_yaml(raw), encoding="utf-8")
    return Experiment.load(path)


def categorical(*choices):
    return {"type": "categorical", "choices": list(choices)}


INT = {"type": "int", "low": 8, "high": 64}
FOLDS = {"folds": 3, "size": 0.1}

REFUSED = [
    # budget
    (
        FORECAST,
        {"budget": {"trials": None}, "search_space": {"dropout": {"type": "float", "low": 0, "high": 0.5}}},
        "budget.trials: must be a number where nothing else ends the search, got null; write 40",
    ),
    # cells
    (FORECAST, {"hyperparameters": {"cell": "gru", "proj_size": 4}}, "hyperparameters.proj_size: gru has"),
    (FORECAST, {"hyperparameters__proj_size": 32}, "hyperparameters.proj_size: must be below hidden_size"),
    (
        FORECAST,
        {"hyperparameters__proj_size": 8, "search_space": {"hidden_size": INT}},
        "hyperparameters.proj_size: must be below hidden_size, whose least is 8, got 8",
    ),
    (
        FORECAST,
        {"hyperparameters__proj_size": 4, "search_space": {"cell": categorical("lstm", "gru")}},
        "proj_size",
    ),
    (FORECAST, {"hyperparameters__nonlinearity": "relu"}, "hyperparameters.nonlinearity: is of the cell rnn"),
    (FORECAST, {"hyperparameters__cell": "ltsm"}, "hyperparameters.cell: unknown cell 'ltsm'"),
    # widths
    (FORECAST, {"hyperparameters": {"hidden_size": [8, 4], "num_layers": 3}}, "hyperparameters.num_layers: "),
    (FORECAST, {"hyperparameters__hidden_size": []}, "hyperparameters.hidden_size"),
    (FORECAST, {"search_space": {"hidden_size_2": INT}}, "search_space.hidden_size_2: the layers are"),
    (
        FORECAST,
        {"search_space": {"hidden_size_1": INT, "hidden_size_3": INT}},
        "search_space.hidden_size_3: the layers are numbered from 1, got no hidden_size_2",
    ),
    (
        FORECAST,
        {"search_space": {"hidden_size_1": INT, "num_layers": {"type": "int", "low": 1, "high": 2}}},
        "search_space.num_layers: every layer has a width of its own",
    ),
    (FORECAST, {"search_space": {"hidden_size_1": INT, "hidden_size": INT}}, "search_space.hidden_size: "),
    (
        FORECAST,
        {"search_space": {"hidden_size_1": INT}, "hyperparameters__hidden_size": [8, 8]},
        "hyperparameters.hidden_size: the search starts at these widths",
    ),
    (
        FORECAST,
        {"search_space": {"hidden_size_1": INT}, "hyperparameters__hidden_size": [4]},
        "hyperparameters.hidden_size: the search starts at this value",
    ),
    (FORECAST, {"search_space": {"hidden_sise_1": INT}}, "search_space.hidden_sise_1: unknown hyperparameter"),
    (
        FORECAST,
        {"search_space": {"hidden_size_1": {"type": "float", "low": 8.0, "high": 9.0}}},
        "search_space.hidden_size_1.type: is a whole number",
    ),
    (
        FORECAST,
        {"search_space": {"hidden_size_1": INT, "hidden_size_2": INT}, "hyperparameters__num_layers": 3},
        "hyperparameters.num_layers: must be the number of layers in search_space (2), got 3",
    ),
    # tasks
    (FORECAST, {"task__kind": "clasify"}, "task.kind: unknown kind 'clasify'; did you mean 'classify'"),
    (LABEL, {"task__window": 24}, "task.window: is of forecasts, got 24 with kind label"),
    (CLASSIFY, {"task__quantiles": [0.5]}, "task.quantiles: is of forecasts"),
    (FORECAST, {"task__quantiles": [0.9, 0.5]}, "task.quantiles: must rise"),
    (FORECAST, {"task__quantiles": [0.1, 0.9]}, "task.quantiles: need 0.5"),
    (FORECAST, {"task__quantiles": [0.0, 0.5]}, "task.quantiles"),
    (LABEL, {"hyperparameters__pooling": "attention"}, "hyperparameters.pooling: label says something of every step"),
    (
        LABEL,
        {"search_space": {"pooling": categorical("last", "attention")}},
        "search_space.pooling: label says something of every step, so it reads every step, got 'attention'",
    ),
    (CLASSIFY, {"hyperparameters__decoder": "recursive"}, "hyperparameters.decoder: classify has no horizon"),
    (REGRESS, {"hyperparameters__window": 12}, "hyperparameters.window: regress reads whole sequences"),
    (REGRESS, {"hyperparameters__class_weights": "balanced"}, "hyperparameters.class_weights: regress has no"),
    (FORECAST, {"hyperparameters__embedding_size": 8}, "hyperparameters.embedding_size: is of tokens"),
    (CLASSIFY, {"data__target": ["y", "z"]}, "data.target: classify predicts one column, got 2"),
    # what is read, and how
    (CLASSIFY, {"hyperparameters__normalize": "last"}, "hyperparameters.normalize: is of forecasts, and classify has no window, got 'last'; remove it"),
    (LABEL, {"hyperparameters__linear_path": True}, "hyperparameters.linear_path: is of whole sequences, and label is of steps, got True; remove it"),
    (STEPS, {"hyperparameters__linear_path": True}, "hyperparameters.linear_path: is of whole sequences, and regress_steps is of steps"),
    (STEPS, {"objective": {"metric": "accuracy"}}, "objective.metric: measures classes, which regress_steps does not"),
    (STEPS, {"data__max_length": 9}, "data.max_length: every step has a target, got 9 with kind regress_steps; remove it, or"),
    (LABEL, {"data__max_length": 9}, "data.max_length: every step has a target, got 9 with kind label"),
    (TEXT, {"search_space": {"linear_path": categorical(True, False)}}, "search_space.linear_path: is of numbers, and the steps are tokens, got True; remove it"),
    (FORECAST, {"hyperparameters__normalize": "log"}, "hyperparameters.normalize: unknown normalize 'log'"),
    (
        FORECAST,
        {"data__features": ["x"], "search_space": {"normalize": categorical("none", "mean")}},
        "search_space.normalize: needs every target among data.features, which lack 'y', got 'mean'; write it there, correct data.target, or write none here",
    ),
    (
        {"data": {"path": "d.csv", "target": ["y", "z"], "features": ["y"]}},
        {"hyperparameters__linear_path": True},
        "hyperparameters.linear_path: needs every target among data.features, which lack 'z', got True; write it there, correct data.target, or write false here",
    ),
    (FORECAST, {"hyperparameters__segment": 13}, "hyperparameters.segment: must be at most the window, whose least is 12, got 13"),
    (
        FORECAST,
        {"search_space": {"segment": categorical(1, 8), "window": INT | {"low": 6}}},
        "search_space.segment: must be at most the window, whose least is 6, got 8; write 6, or a longer window",
    ),
    (FORECAST, {"hyperparameters__segment": 0}, "hyperparameters.segment: must be at least 1"),
    (LABEL, {"hyperparameters__segment": 2}, "hyperparameters.segment: label says something of every step"),
    (TEXT, {"hyperparameters__segment": 2}, "hyperparameters.segment: is of numbers, and the steps are tokens"),
    (REGRESS, {"hyperparameters__decoder": "segments"}, "hyperparameters.decoder: regress has no horizon"),
    (FORECAST, {"hyperparameters__conv_kernel": 5}, "hyperparameters.conv_kernel: is of the convolution, and"),
    (
        FORECAST,
        {"search_space": {"conv_channels": INT | {"type": "float", "low": 8.0, "high": 9.0}}},
        "search_space.conv_channels.type: is a whole number",
    ),
    # metrics and losses
    (FORECAST, {"objective__metric": "accuracy"}, "objective.metric: measures classes, which forecast does"),
    (FORECAST, {"objective__metric": "pinball"}, "objective.metric: measures task.quantiles"),
    (CLASSIFY, {"objective__metric": "rmse"}, "objective.metric: measures values, which classify does not"),
    (CLASSIFY, {"hyperparameters__loss": "mse"}, "hyperparameters.loss: does not fit classes, got 'mse'; write auto or"),
    (FORECAST, {"hyperparameters__loss": "quantile"}, "hyperparameters.loss: does not fit values"),
    (
        FORECAST,
        {"task__quantiles": [0.5], "search_space": {"loss": categorical("quantile", "mae")}},
        "search_space.loss: does not fit quantiles",
    ),
    # data
    (CLASSIFY, {"data": {"path": "d.csv", "target": "y"}}, "data.id: is required by classify"),
    (FORECAST, {"data__text": "t"}, "data.text: is of sequences, got 't' with kind forecast"),
    (FORECAST, {"data__tokens": "t"}, "data.tokens: is of sequences"),
    (TEXT, {"data__id": "i"}, "data.id: each row is a sequence of its own"),
    (TEXT, {"task__kind": "label"}, "data.text: has one target, got"),
    (TEXT, {"data__features": ["x"]}, "data.text: a model sees features or text, got both"),
    (CLASSIFY, {"data__vocabulary_size": 9}, "data.vocabulary_size: needs data.tokens"),
    (CLASSIFY, {"data__min_count": 2}, "data.min_count: needs data.text or data.tokens, got 2 without"),
    (CLASSIFY, {"data__max_vocabulary": 9}, "data.max_vocabulary: needs data.text or data.tokens"),
    (CLASSIFY, {"data__keep": "last"}, "data.keep: needs data.max_length, got 'last' without"),
    (FORECAST, {"data__max_length": 9}, "data.max_length: is of sequences, got 9 with kind forecast"),
    (FORECAST, {"hyperparameters__unknown_rate": 0.1}, "hyperparameters.unknown_rate: is of tokens"),
    (CLASSIFY, {"data__transform": "log"}, "data.transform: is of forecasts, got 'log' with classify"),
    (CLASSIFY, {"data__lags": {"x": [1]}}, "data.lags: is of forecasts"),
    (CLASSIFY, {"data__split": {"validation": FOLDS}}, "data.split.validation: sequences have no order"),
    (CLASSIFY, {"data__split": {"test": "2020-01-01"}}, "data.split.test: sequences have no order"),
    (FORECAST, {"data__calendar": ["hour"]}, "data.calendar: needs data.time"),
    (FORECAST, {"data__resample": "1h"}, "data.resample: needs data.time"),
    (FORECAST, {"data": {"path": "d", "target": "y", "time": "t", "resample": "often!"}}, "data.resample: "),
    (FORECAST, {"data__aggregate": "sum"}, "data.aggregate: needs data.resample, got 'sum' without"),
    (CLASSIFY, {"data__level": "word"}, "data.level: needs data.text, got 'word' without"),
    (FORECAST, {"data__lags": {"x": []}}, "data.lags.x"),
    (FORECAST, {"data__lags": {"x": [0]}}, "data.lags.x.0"),
    (FORECAST, {"data__missing": "drop"}, "data.missing: unknown missing 'drop'"),
    (FORECAST, {"data__split": {"validation": {"fold": 3}}}, "data.split.validation.fold: unknown key"),
    (FORECAST, {"data__split": {"validation": {"folds": 0}}}, "data.split.validation.folds: "),
    (FORECAST, {"data__split": {"validation": FOLDS | {"size": 2.5}}}, "data.split.validation.size: "),
    (FORECAST, {"data__split": {"validation": FOLDS | {"gap": -1}}}, "data.split.validation.gap"),
    (FORECAST, {"data__split": {"validation": "soon"}}, "data.split.validation: must be a fraction"),
    (
        FORECAST,
        {"data__transform": "difference", "task": {"horizon": 2, "quantiles": [0.5]}},
        "data.transform: quantiles of differences",
    ),
    (FORECAST, {"pruner": {"name": "wilcoxon"}}, "pruner.name: wilcoxon compares folds, got no rolling"),
    (FORECAST, {"pruner": {"name": "halving"}}, "pruner.name: unknown pruner 'halving'"),
    (FORECAST, {"pruner": {"name": "percentile", "percentile": 101.0}}, "pruner.percentile: must be"),
    (FORECAST, {"pruner": {"name": "patient", "wrapped": {"name": "patient"}}}, "pruner.wrapped.name"),
    (FORECAST, {"training__device": "gpu"}, "training.device: unknown device 'gpu'"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "changes", "text"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_does_not_go_together_is_refused_in_one_line(tmp_path, base, changes, text):
    with pytest.raises(InputError) as refused:
        load(tmp_path, base, **changes)
    assert text in str(refused.value)
    assert "got" in str(refused.value) or "unknown" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("base", "changes", "metric"),
    [
        (FORECAST, {}, "rmse"),
        (FORECAST, {"task__quantiles": [0.1, 0.5]}, "pinball"),
        (REGRESS, {}, "rmse"),
        (CLASSIFY, {}, "accuracy"),
        (LABEL, {"objective": {}}, "accuracy"),
        (TEXT, {"objective__metric": "f1"}, "f1"),
    ],
)
def test_the_metric_follows_from_the_task(tmp_path, base, changes, metric):
    experiment = load(tmp_path, base, **changes)
    assert experiment.objective.metric == metric
    maximized = {"r2", "accuracy", "f1", "auroc"}
    assert (experiment.objective.direction == "maximize") is (metric in maximized)


def test_every_metric_can_be_asked_for(tmp_path):
    for name, metric in METRICS.items():
        base = {"classes": CLASSIFY, "texts": TRANSLATE}.get(metric.of, FORECAST)
        quantiles = {"task__quantiles": [0.5]} if metric.of == "quantiles" else {}
        assert load(tmp_path, base, objective__metric=name, **quantiles)


@pytest.mark.parametrize("base", [FORECAST, CLASSIFY, LABEL, REGRESS, TEXT, TRANSLATE])
def test_what_is_written_loads_as_what_it_was(tmp_path, base):
    experiment = load(tmp_path, base)
    again = Experiment.model_validate(experiment.to_dict())
    assert again.to_dict() == experiment.to_dict()
    assert again == experiment


def test_widths_are_searched_one_by_one_and_trained_as_a_list(tmp_path):
    space = {"hidden_size_1": INT, "hidden_size_2": INT | {"low": 2}}
    experiment = load(tmp_path, FORECAST, search_space=space)
    assert experiment.start() == {"hidden_size_1": 32, "hidden_size_2": 32}
    configuration = experiment.configuration({"hidden_size_1": 16, "hidden_size_2": 4})
    assert (configuration["hidden_size"], configuration["num_layers"]) == ([16, 4], 2)
    assert not {"hidden_size_1", "hidden_size_2"} & configuration.keys()
    again = Experiment.model_validate(experiment.to_dict())
    assert again.start() == experiment.start()
    begins = load(tmp_path, FORECAST, search_space=space, hyperparameters__hidden_size=[64, 2])
    assert begins.start() == {"hidden_size_1": 64, "hidden_size_2": 2}


@pytest.mark.parametrize(
    ("base", "values"),
    [
        (FORECAST, {"normalize": "standard", "linear_path": True, "segment": 12}),
        (FORECAST, {"decoder": "segments", "segment": 4, "conv_channels": 8, "conv_kernel": 5}),
        (REGRESS, {"segment": 1000, "conv_channels": 8}),
        (REGRESS, {"linear_path": True, "segment": 3}),
        (CLASSIFY, {"linear_path": True, "class_weights": "balanced"}),
        (LABEL, {"conv_channels": 8}),
        (TEXT, {"conv_channels": 8, "conv_kernel": 2}),
    ],
)
def test_what_goes_together_is_taken_fixed_and_searched(tmp_path, base, values):
    assert load(tmp_path, base, hyperparameters=values)
    space = {name: categorical(value) for name, value in values.items()}
    assert load(tmp_path, base, search_space=space).configuration(values).items() >= values.items()


def test_a_searched_window_starts_at_the_tasks(tmp_path):
    window = {"type": "int", "low": 6, "high": 48}
    experiment = load(tmp_path, FORECAST, search_space={"window": window}, task__window=24)
    assert experiment.start() == {"window": 24}
    assert "window" not in experiment.configuration({})


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"strategy": {"name": "tpe"}}, "strategy.name: searches by one objective, got 'tpe'"),
        ({"pruner": {"name": "median"}}, "pruner.name: compares metrics alone"),
        ({"objective": {"metrics": ["rmse", "mae"]}}, "must be a metric and then a cost"),
        ({"objective": {"metrics": ["weights", "rmse"]}}, "got [weights, rmse]; write [rmse, w"),
        ({"objective": {"metrics": ["rmse"]}}, "must be a metric and then a cost"),
        ({"objective": {"metrics": ["rmse", "wieght"]}}, "did you mean 'weights'?"),
        ({"objective": {"metrics": ["accuracy", "weights"]}}, "measures classes"),
        ({"objective": {"metrics": ["rmse", "weights"], "metric": "mae"}}, "must be the first of"),
    ],
)
def test_two_objectives_are_searched_by_nsga2(keys, problem):
    raw = {
        "name": "a",
        "data": {"path": "a.csv", "target": "y"},
        "search_space": {"hidden_size": {"type": "int", "low": 2, "high": 64}},
        "objective": {"metrics": ["rmse", "weights"]},
    }
    experiment = Experiment.model_validate(raw)
    assert experiment.objective.metric == "rmse"
    assert experiment.objective.directions == ["minimize", "minimize"]
    assert (experiment.strategy.name, experiment.pruner.name) == ("nsga2", "none")
    assert Experiment.model_validate(experiment.to_dict()) == experiment
    with pytest.raises(ValueError, match=re.escape(problem)):
        Experiment.model_validate(raw | keys)


SPACE = {
    "transform": ["none", ["log"], ["log", {"seasonal_difference": 12}]],
    "scale": ["standard", "minmax"],
    "calendar": [[], ["month"]],
    "lags": [{}, {"y": [12, 24]}],
}


def experiment(space=SPACE, **keys):
    data = {"path": "/a.csv", "time": "t", "target": "y", **keys.pop("data", {})}
    domains = {n: {"type": "categorical", "choices": choices} for n, choices in space.items()}
    domains["hidden_size"] = {"type": "int", "low": 4, "high": 8}
    return Experiment.model_validate({"name": "a", "data": data, "search_space": domains, **keys})


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.one_of(st.integers(-99, 99), st.booleans(), st.none(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@given(value=values)
def test_any_yaml_is_a_text_of_one_line_that_says_it_again(value):
    text = text_of([value])
    assert len(text.splitlines()) == 1
    assert value_of(text) == [value]


def test_a_choice_has_one_text_however_it_is_written():
    again = [["none"], "[log, none]", "[log, {seasonal_difference: 12}]"]
    for space in (SPACE, SPACE | {"transform": again}):
        assert experiment(space).search_space["transform"].bounds() == (
            "none", "log", "[log, {seasonal_difference: 12}]",
        )  # fmt: skip
    of = experiment()
    assert Experiment.model_validate(of.to_dict()).to_dict() == of.to_dict()


def test_a_trial_s_data_is_that_of_the_file_with_its_choices():
    of = experiment(data={"features": ["y"], "split": {"test": 30}})
    params = {
        "transform": "[log, {seasonal_difference: 12}]", "calendar": "[month]",
        "lags": "{y: [12, 24]}", "hidden_size": 5,
    }  # fmt: skip
    chosen = of.prepared_as(params)
    assert chosen.data.transform == ["log", {"seasonal_difference": 12}]
    assert (chosen.data.scale, chosen.data.calendar) == ("standard", ["month"])
    assert chosen.data.lags == {"y": [12, 24]}
    assert (chosen.data.features, chosen.data.split.test) == (["y"], 30)
    assert list(chosen.search_space) == ["hidden_size"]
    assert of.preparation(params)["scale"] == "standard"
    configuration = of.configuration(params)
    assert configuration["hidden_size"] == 5
    assert not configuration.keys() & SPACE.keys()


def test_a_search_starts_from_the_datas_defaults():
    of = experiment(data={"transform": "log", "calendar": ["month"]})
    expected = {
        "transform": "log", "scale": "standard", "calendar": "[month]", "lags": "{}",
    }  # fmt: skip
    assert {n: v for n, v in of.start().items() if n in SPACE} == expected
    assert {n: v for n, v in untuned(of).items() if n in SPACE} == expected
    elsewhere = experiment(SPACE | {"transform": ["log", "difference"]})
    assert "transform" not in elsewhere.start()
    assert untuned(elsewhere)["transform"] == "none"


def test_different_preparations_make_different_configurations():
    of = experiment()
    one, other = ({"hidden_size": 4, "transform": text} for text in ("none", "log"))
    assert canonical(of, one) != canonical(of, other)
    assert canonical(of, one) == canonical(of, {"hidden_size": 4})


def test_rows_are_read_as_the_most_demanding_preparations_need():
    of = experiment(data={"lags": {}})
    read = [(e.data.transform, e.data.lags) for e in of.read_rows]
    assert read[0] == ("none", {})
    assert len(read) == 3 * 2
    recorded = {
        "study": "s", "seed": 1, "score": 1.0, "metric": "rmse", "rows": 9, "versions": {},
        "data_sha256": "0", "command": "c", "preparations": {"lags": ["{y: [7]}"]},
    }  # fmt: skip
    exported = experiment({}, recorded=recorded)
    assert [e.data.lags for e in exported.read_rows] == [{}, {"y": [7]}]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (
            {"search_space": {"transform": {"type": "categorical", "choices": ["none", "lgo"]}}},
            "search_space.transform.choices: must be a transform, or a list of several, got 'lgo'; "
            "did you mean 'log'?",
        ),
        (
            {"search_space": {"transform": {"type": "categorical", "choices": ["log", ["log"]]}}},
            "search_space.transform.choices: must differ, got 'log' twice; remove one",
        ),
        (
            {
                "search_space": {
                    "calendar": {
                        "type": "categorical",
                        "choices": [["hour", "weekday"], ["weekday", "hour"]],
                    }
                }
            },
            "search_space.calendar.choices: must differ, got '[hour, weekday]' and "
            "'[weekday, hour]', which are the same; remove one",
        ),
        (
            {
                "search_space": {
                    "lags": {"type": "categorical", "choices": [{"y": [1, 2]}, {"y": [2, 1]}]}
                }
            },
            "search_space.lags.choices: must differ, got '{y: [1, 2]}' and '{y: [2, 1]}', which "
            "are the same; remove one",
        ),
        (
            {"search_space": {"scale": {"type": "categorical", "choices": ["standard", "std"]}}},
            "search_space.scale: with the choice std: must be 'standard', 'minmax' or 'none', got "
            "'std'; change it",
        ),
        (
            {"search_space": {"scale": {"type": "int", "low": 1, "high": 2}}},
            "search_space.scale.type: is one of several values, got 'int'; write `type: categ",
        ),
        (
            {"search_space": {"transform": ["none", "log"]}},
            "search_space.transform: must be a block of keys, got ['none', 'log']; write "
            "`transform: {type: categorical, choices: [none, log]}`, say",
        ),
        (
            {"search_space": {"calendar": {"type": "categorical", "choices": [[], ["hours"]]}}},
            "search_space.calendar: with the choice [hours]: must be 'hour', 'weekday' or 'month'",
        ),
        (
            {"search_space": {"lags": {"type": "categorical", "choices": [{}, {"y": [0]}]}}},
            "search_space.lags: with the choice {y: [0]}: must be at least 1, got 0; change it",
        ),
        (
            {
                "search_space": {"calendar": {"type": "categorical", "choices": [[], ["month"]]}},
                "data": {"time": None},
            },
            "search_space.calendar: with the choice [month]: needs data.time, got ['month']",
        ),
        (
            {
                "search_space": {
                    "transform": {
                        "type": "categorical", "choices": ["none", {"seasonal_difference": 2}],
                    }
                },
                "task": {"horizon": 3, "quantiles": [0.5]},
            },
            "search_space.transform: with the choice {seasonal_difference: 2}: quantiles of "
            "differences do not add up over a horizon, got 'seasonal_difference: 2' with "
            "task.quantiles and task.horizon 3; write none or log, or a seasonal_difference of 3",
        ),
        (
            {
                "search_space": {"transform": {"type": "categorical", "choices": ["none", "log"]}},
                "data": {"transform": "difference"},
            },
            "data.transform: the search starts at this value, which must lie in "
            "search_space.transform, got difference; move it or widen the space",
        ),
        (
            {
                "search_space": {"lags": {"type": "categorical", "choices": [{}, {"x": [1]}]}},
                "task": {"kind": "regress"}, "data": {"id": "s"},
            },
            "search_space.lags: with the choice {x: [1]}: is of forecasts, got {'x': [1]} with "
            "regress; remove it",
        ),
        (
            {"data": {"scale_by": "series"}},
            "data.scale_by: needs data.id, got 'series' without; set data.id as",
        ),
        (
            {"data": {"scale_by": "series", "id": "s"}, "task": {"kind": "classify"}},
            "data.scale_by: is of forecasts, got 'series' with classify; remove it",
        ),
        (
            {"data": {"transform": ["log", "difference"]},
             "task": {"quantiles": [0.5], "horizon": 2}},
            "data.transform: quantiles of differences do not add up over a horizon, got "
            "'difference' with task.quantiles and task.horizon 2; write none or log, or a "
            "seasonal_difference of 2 rows or more",
        ),
    ],
)  # fmt: skip
def test_a_preparation_that_breaks_a_rule_is_refused(tmp_path, raw, text):
    path = tmp_path / "e.yaml"
    data = {"path": "a.csv", "time": "t", "target": "y"} | raw.pop("data", {})
    raw = {"name": "a", "data": {k: v for k, v in data.items() if v is not None}, **raw}
    path.write_text(dump_yaml(raw))
    with pytest.raises(ExperimentError) as refused:
        Experiment.load(path)
    assert str(refused.value).startswith(f"{path}: {text}")


@pytest.mark.parametrize(
    "transform", [{"seasonal_difference": 3}, ["log", {"seasonal_difference": 9}], "box_cox"]
)
def test_seasonal_difference_quantiles_add_up_within_the_season(transform):
    task = {"quantiles": [0.1, 0.5], "horizon": 3}
    assert experiment({}, data={"transform": transform}, task=task).data.transform == transform
