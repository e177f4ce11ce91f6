"""Preparations of the data as dimensions of the search: choices, their texts, and the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.finalists import canonical, untuned
from tuner.errors import ExperimentError
from tuner.experiment import Experiment, dump_yaml
from tuner.experiment.space import text_of, value_of

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
            "search_space.calendar: with the choice [month]: needs the time, got ['month']; set",
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
            "data.scale_by: is of several series, got 'series' without data.id; set data.id as",
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
