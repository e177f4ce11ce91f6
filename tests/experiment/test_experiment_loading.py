"""What an experiment file means: numbers, paths, overrides, and that it survives being written."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.experiment import Experiment, Override, dump_yaml, parse_value, space_size
from tuner.results.export import render

MINIMAL = "name: air\ndata: {path: air.csv, target: y}\n"


def written(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "e.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3", "1E-3"])
def test_a_number_with_an_exponent_is_a_number(tmp_path, text):
    path = written(tmp_path, MINIMAL + f"hyperparameters: {{learning_rate: {text}}}\n")
    assert Experiment.load(path).hyperparameters.learning_rate == 0.001
    assert parse_value(text, "--set x") == 0.001


def test_no_is_a_text_and_a_date_is_a_date(tmp_path):
    text = "name: air\ndata: {path: a.csv, target: no, split: {test: 1960-01-01}}\n"
    data = Experiment.load(written(tmp_path, text)).data
    assert data.target == "no"
    assert data.split.test == "1960-01-01"


def test_every_block_but_the_data_has_defaults(tmp_path):
    experiment = Experiment.load(written(tmp_path, MINIMAL))
    assert experiment.strategy.name == "tpe"
    assert experiment.budget.trials == 40
    assert experiment.start() == {}
    assert space_size(experiment.search_space) == 1


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    text = MINIMAL.replace("air.csv", "data/air.csv") + "search_space: ../spaces/my.yaml\n"
    path = written(tmp_path / "experiments", text)
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces/my.yaml").write_text("num_layers: {type: int, low: 1, high: 3}\n")
    (tmp_path / "spaces/other.yaml").write_text("dropout: {type: float, low: 0, high: 0.5}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    experiment = Experiment.load(path)
    assert experiment.data.path == str(tmp_path / "experiments/data/air.csv")
    assert list(experiment.search_space) == ["num_layers"]
    assert Experiment.load("../experiments/e.yaml") == experiment

    changed = Experiment.load(
        path,
        [
            Override("data.path", "../other.csv", "--set"),
            Override("search_space", "../spaces/other.yaml", "--set"),
        ],
    )
    assert changed.data.path == str(tmp_path / "other.csv")
    assert list(changed.search_space) == ["dropout"]


def test_a_key_of_a_space_in_another_file_can_be_changed(tmp_path):
    path = written(tmp_path, MINIMAL + "search_space: my.yaml\n")
    (tmp_path / "my.yaml").write_text("num_layers: {type: int, low: 1, high: 3}\n")
    changed = Experiment.load(path, [Override("search_space.num_layers.high", 2, "--set")])
    assert space_size(changed.search_space) == 2


def test_a_named_strategy_replaces_the_block_and_later_wins(tmp_path):
    path = written(tmp_path, MINIMAL + "strategy: {name: woa, population: 7}\nseed: 3\n")
    strategy = Override("strategy", {"name": "pso"}, "--strategy")
    assert Experiment.load(path, [strategy]).strategy.model_dump()["population"] == 10
    seeds = [Override("seed", 4, "--seed"), Override("seed", 5, "--set")]
    assert Experiment.load(path, seeds).seed == 5
    population = Override("strategy.population", 4, "--set")
    changed = Experiment.load(path, [strategy, population]).strategy.model_dump()
    assert (changed["name"], changed["population"]) == ("pso", 4)


@pytest.mark.parametrize(
    ("strategy", "trials", "population"),
    [
        ({"name": "woa"}, 40, 10),
        ({"name": "woa"}, 1000, 10),
        ({"name": "woa"}, 39, 9),
        ({"name": "qpso"}, 20, 5),
        ({"name": "cmaes"}, 8, 4),
        ({"name": "pso"}, 3, 2),
        ({"name": "pso", "topology": "ring"}, 8, 3),  # as many as its neighbours
        ({"name": "pso", "population": 30}, 8, 30),
        ({"name": "pso"}, None, 4),  # the space has 16 configurations
    ],
)
def test_the_default_population_leaves_four_generations(strategy, trials, population):
    space = {"hidden_size": {"type": "int", "low": 1, "high": 16 if trials is None else 8000}}
    raw = {
        "name": "air",
        "data": {"path": "a.csv", "target": "y"},
        "search_space": space,
        "strategy": strategy,
        "budget": {"trials": trials},
    }
    experiment = Experiment.model_validate(raw)
    assert experiment.strategy.model_dump()["population"] == population
    assert experiment.to_dict()["strategy"]["population"] == population
    longer = experiment.changed({"budget.trials": 2000}).strategy.model_dump()["population"]
    written_or_not = strategy.get("population", min(10, 4 if trials is None else 10))
    assert longer == written_or_not
    assert Experiment.model_validate(experiment.to_dict()).strategy == experiment.strategy


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("45", 45)]
)
def test_a_timeout_is_seconds_or_a_time_with_units(tmp_path, text, seconds):
    path = written(tmp_path, MINIMAL + f"budget: {{timeout: {text}}}\n")
    assert Experiment.load(path).budget.timeout == seconds


def test_a_search_starts_from_given_values_or_defaults():
    raw = {
        "name": "air",
        "data": {"path": "a.csv", "target": "y"},
        "hyperparameters": {"dropout": 0.2},
        "search_space": {
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "num_layers": {"type": "int", "low": 1, "high": 3},
            "hidden_size": {"type": "int", "low": 4, "high": 8},  # the default, 32, is outside
            "batch_size": {"type": "categorical", "choices": [8, 16]},  # so is 32
        },
    }
    assert Experiment.model_validate(raw).start() == {"dropout": 0.2, "num_layers": 1}


def test_the_editor_schema_refuses_unknown_keys():
    schema = Experiment.model_json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Budget"]["properties"]["trials"]["description"]
    assert schema["required"] == ["name", "data"]


ints = st.integers(1, 200)
shares = st.one_of(st.floats(0.01, 0.4), st.integers(1, 500), st.just("1960-01-01"))
columns = st.text(min_size=1, max_size=12).filter(lambda s: s.isprintable() and s != "when")
int_domains = st.builds(
    lambda low, more, log: {"type": "int", "low": low, "high": low + more, "log": log},
    ints,
    ints,
    st.booleans(),
)
float_domains = st.builds(
    lambda low, high: {"type": "float", "low": low, "high": high},
    st.floats(0, 0.4),
    st.floats(0.5, 0.9),
)
choices = st.lists(ints, min_size=1, max_size=4, unique=True)
spaces = st.fixed_dictionaries(
    {},
    optional={
        "hidden_size": int_domains,
        "dropout": float_domains,
        "batch_size": st.builds(lambda c: {"type": "categorical", "choices": c}, choices),
        "bidirectional": st.just({"type": "categorical", "choices": [False, True]}),
    },
)
experiments = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
        "data": st.fixed_dictionaries(
            {"path": st.just("/data/a.csv"), "target": columns},
            optional={
                "time": st.just("when"),
                "features": st.lists(columns, min_size=1, max_size=3, unique=True),
                "split": st.fixed_dictionaries({"validation": shares, "test": shares}),
                "transform": st.sampled_from(["none", "log", "difference"]),
            },
        ),
    },
    optional={
        "search_space": spaces,
        "hyperparameters": st.fixed_dictionaries(
            {}, optional={"learning_rate": st.floats(1e-6, 1), "num_layers": st.integers(1, 4)}
        ),
        "strategy": st.one_of(
            st.builds(lambda n: {"name": "woa", "population": n}, st.integers(2, 50)),
            st.builds(lambda n: {"name": "tpe", "batch": n}, ints),
            st.sampled_from([{"name": "pso"}, {"name": "random"}]),
        ),
        "budget": st.fixed_dictionaries(
            {"trials": ints}, optional={"timeout": st.one_of(st.none(), st.just("10m"))}
        ),
        "pruner": st.sampled_from([{"name": "none"}, {"name": "median", "n_warmup_steps": 3}]),
        "objective": st.sampled_from([{"metric": "r2"}, {"metric": "mae"}]),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@settings(deadline=None, max_examples=50)
@given(raw=experiments)
def test_an_experiment_survives_writing_and_reading(tmp_path_factory, raw):
    experiment = Experiment.model_validate(raw)
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    for text in (experiment.to_yaml(), render(experiment.to_dict(), as_json=True), dump_yaml(raw)):
        path.write_text(text, encoding="utf-8")
        again = Experiment.load(path)
        assert again == experiment
        assert again.to_dict() == experiment.to_dict()
        assert again.start() == experiment.start()
