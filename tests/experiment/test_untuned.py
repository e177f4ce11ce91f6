"""The configuration that one gets without a search."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.finalists import canonical, untuned
from tuner.experiment import Experiment, Hyperparameters
from tuner.experiment.rules import check_rules

DEFAULT = {name: field.default for name, field in Hyperparameters.model_fields.items()}


def make(space, fixed=None, **keys):
    return Experiment.model_validate(
        {
            "name": "x",
            "data": {"path": "/x.csv", "target": "y"},
            "search_space": space,
            "hyperparameters": fixed or {},
            **keys,
        }
    )


def integer(low, high):
    return {"type": "int", "low": low, "high": high}


def choice(*choices):
    return {"type": "categorical", "choices": list(choices)}


def test_the_default_takes_library_and_fixed_values():
    experiment = make(
        {"hidden_size": integer(64, 128), "dropout": {"type": "float", "low": 0.1, "high": 0.5}},
        {"hidden_size": 100, "batch_size": 8, "cell": "gru"},
    )
    assert untuned(experiment) == {"hidden_size": 32, "dropout": 0.0}
    whole = experiment.configuration(untuned(experiment))
    assert (whole["hidden_size"], whole["batch_size"], whole["cell"]) == (32, 8, "gru")


def test_layers_searched_separately_become_one_default_layer():
    space = {"hidden_size_1": integer(4, 8), "hidden_size_2": integer(4, 8)}
    for fixed in ({}, {"hidden_size": [6, 6]}, {"num_layers": 2, "hidden_size": 5}):
        experiment = make(space, fixed)
        whole = experiment.configuration(untuned(experiment))
        assert (whole["hidden_size"], whole["num_layers"]) == (32, 1)


@pytest.mark.parametrize(("bounds", "expected"), [((2, 8), 8), ((2, 30), 12), ((20, 30), 12)])
def test_the_default_window_is_within_the_searched_ones(bounds, expected):
    assert untuned(make({"window": integer(*bounds)}))["window"] == expected


@pytest.mark.parametrize(
    ("space", "fixed", "expected"),
    [
        ({"hidden_size": integer(64, 128)}, {"proj_size": 50}, {"hidden_size": 64}),
        ({"hidden_size": integer(16, 128)}, {"proj_size": 10}, {"hidden_size": 32}),
        (
            {"hidden_size_1": integer(60, 99), "hidden_size_2": integer(70, 99)},
            {"proj_size": 50},
            {"hidden_size_1": 60, "hidden_size_2": 70},
        ),
        ({"cell": choice("rnn")}, {"nonlinearity": "relu"}, {"cell": "rnn"}),
        ({"cell": choice("gru", "rnn")}, {}, {"cell": "lstm"}),
        (
            {"normalize": choice("last", "mean"), "linear_path": choice(True)},
            {"segment": 6},
            {"normalize": "none", "linear_path": False},
        ),
        ({"segment": integer(2, 6)}, {"decoder": "segments"}, {"segment": 1}),
        ({"window": integer(24, 48)}, {"segment": 20}, {"window": 24}),
        ({"conv_channels": integer(4, 8)}, {"conv_kernel": 5}, {"conv_channels": 4}),
    ],
)
def test_a_forbidden_default_is_moved_into_the_space(space, fixed, expected):
    assert untuned(make(space, fixed)) == expected


spaces = st.fixed_dictionaries(
    {},
    optional={
        "hidden_size": st.builds(integer, st.integers(1, 60), st.integers(60, 200)),
        "num_layers": st.just(integer(1, 3)),
        "window": st.builds(integer, st.integers(1, 10), st.integers(10, 40)),
        "cell": st.just(choice("lstm")),
        "decoder": st.just(choice("recursive")),
        "batch_size": st.just(choice(7, 9)),
        "learning_rate": st.just({"type": "float", "low": 0.1, "high": 0.2}),
    },
)


@given(spaces, st.integers(0, 50), st.sampled_from(["lstm", "gru"]))
def test_it_is_always_a_model_that_can_be_trained(space, proj_size, cell):
    fixed = {"cell": cell} if "cell" not in space else {}
    if fixed.get("cell", "lstm") == "lstm":
        fixed["proj_size"] = min(proj_size, 31, space.get("hidden_size", {"low": 32})["low"] - 1)
    experiment = make(space, fixed)
    params = untuned(experiment)
    assert params.keys() == space.keys()
    found = Hyperparameters(**experiment.configuration(params))
    check_rules(experiment.model_copy(update={"search_space": {}, "hyperparameters": found}))
    for name, value in params.items():
        assert value == DEFAULT[name] or name == "window" or fixed.get("proj_size")


def test_equal_configurations_have_one_form():
    layers = make({"hidden_size_1": integer(8, 64), "hidden_size_2": integer(8, 64)})
    one = canonical(layers, {"hidden_size_1": 32, "hidden_size_2": 32})
    assert one == canonical(layers, {"hidden_size": 32, "num_layers": 2})
    assert one != canonical(layers, {"hidden_size_1": 32, "hidden_size_2": 33})
    window = make({"window": integer(6, 20)})
    assert canonical(window, {"window": 12}) == canonical(window, {})
    assert canonical(window, {"window": 13}) != canonical(window, {})
