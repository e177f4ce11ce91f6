"""Rules between keys of an experiment, and of its preparation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.finalists import canonical, untuned
from tuner.experiment import Experiment, dump_yaml
from tuner.experiment.yaml_files import text_of, value_of
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


def test_two_objectives_are_searched_by_nsga2():
    raw = {"search_space": {"hidden_size": INT}, "objective": {"metrics": ["rmse", "weights"]}}
    experiment = Experiment.model_validate({"name": "a"} | FORECAST | raw)
    assert experiment.objective.metric == "rmse"
    assert experiment.objective.directions == ["minimize", "minimize"]
    assert (experiment.strategy.name, experiment.pruner.name) == ("nsga2", "none")
    assert Experiment.model_validate(experiment.to_dict()) == experiment


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
    "transform", [{"seasonal_difference": 3}, ["log", {"seasonal_difference": 9}], "box_cox"]
)
def test_seasonal_difference_quantiles_add_up_within_the_season(transform):
    task = {"quantiles": [0.1, 0.5], "horizon": 3}
    assert experiment({}, data={"transform": transform}, task=task).data.transform == transform
