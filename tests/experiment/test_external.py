"""Specifications of external studies: what they take, and one line for what they refuse."""

import math

import pytest

from tuner.errors import ExperimentError
from tuner.experiment.external import ExternalSpec

X = {"type": "float", "low": 0.0, "high": 1.0}
GIVEN = {"name": "s", "space": {"x": X}, "direction": "minimize"}
MISSING = object()


def spec_with(**keys):
    values = GIVEN | keys
    return ExternalSpec.from_dict({k: v for k, v in values.items() if v is not MISSING})


def choices(*values):
    return {"x": {"type": "categorical", "choices": list(values)}}


REFUSED = [
    ({"space": MISSING}, "space: is required; write `space: {x: {type: float, low"),
    ({"space": {}}, "space: must have 1 or more items, got {}; write"),
    ({"space": {"x": 3}}, "space.x: must be a block of keys, got 3; write `x: {type: float"),
    ({"space": {"x": X | {"low": 2.0}}}, "space.x: low must be below high, got low=2.0, high=1.0"),
    ({"space": {"x": {"type": "flot"}}}, "space.x.type: unknown type 'flot'; did you mean 'float'"),
    ({"space": {"": X}}, "space: names of parameters must have 1 to 200 characters, got ''"),
    ({"space": {"a\0": X}}, r"space: must hold no control characters, got 'a\x00'; remove them"),
    ({"space": {"x": X | {"low": -1.7e308, "high": 1.7e308}}}, "range must fit in a float"),
    ({"space": {"x": {"type": "int", "low": 0, "high": 2**54}}}, "within 2**53 of 0, got 18014"),
    ({"space": choices([1], 2)}, "space.x.choices: must be numbers, texts, true or false, got [1]"),
    ({"space": choices(math.nan, 1.0)}, "space.x.choices: must be finite numbers, got nan"),
    ({"space": choices("\ud800")}, r"space.x: must hold no control characters, got '\ud800'"),
    ({"space": choices("a" * 1001)}, "choices: must have at most 1000 characters each, got 'aaa"),
    ({"space": choices(*range(10_001))}, "choices: must be at most 10,000, got 10,001"),
    ({"strategy": {"name": "brute"}}, "space.x: must have finitely many values"),
    ({"strategy": {"name": "whale"}}, "unknown strategy 'whale'; did you mean 'woa'?"),
    ({"strategy": {"name": "pso", "batch": 3}}, "strategy.batch: unknown key 'batch'; it is of"),
    ({"direction": MISSING}, "direction: is required; write `direction: minimize`"),
    ({"direction": "min"}, "unknown direction 'min'; choose from: minimize, maximize"),
    ({"lease": 3}, "lease: unknown key 'lease'; did you mean 'lease_s'?"),
    ({"lease_s": 0}, "lease_s: must be at least 1, got 0"),
    ({"lease_s": math.nan}, "lease_s: must be at most 86400, got nan"),
    ({"trials": 0}, "trials: must be at least 1, got 0"),
    ({"pruner": {"name": "hyperband"}}, "steps: is required by hyperband; write the most steps"),
    ({"pruner": {"name": "patient", "wrapped": {"name": "hyperband"}}}, "steps: is required by"),
    ({"pruner": {"name": "wilcoxon"}}, "pruner.name: wilcoxon compares folds"),
    (
        {"name": "a\u202eb"},
        "name: must not hold '\\u202e', which file names cannot have everywhere",
    ),
    ({"name": "a/b"}, "name: must not hold '/', which file names cannot have everywhere"),
    ({"name": "tuner.service"}, "name: tuner.service is the service's own"),
    ({"name": "a.finalists"}, "name: names that end in .finalists are reserved"),
    ({"metric": ""}, "metric: must not be empty, got ''; write `metric: value`, say"),
]


@pytest.mark.parametrize(("keys", "text"), REFUSED, ids=[text[:30] for _, text in REFUSED])
def test_a_wrong_value_is_refused_in_one_line(keys, text):
    with pytest.raises(ExperimentError) as refused:
        spec_with(**keys)
    line = str(refused.value)
    assert line.startswith("external study: ")
    assert text in line
    assert "\n" not in line


def test_something_else_than_a_mapping_is_refused():
    with pytest.raises(ExperimentError, match="must be a mapping of keys to values, got a list"):
        ExternalSpec.from_dict([1])


@pytest.mark.parametrize("name", ["transform", "scale", "hidden_size", "Größe", "a.b", "1"])
def test_a_parameter_may_have_any_name(name):
    space = {name: {"type": "categorical", "choices": ["a", "[b", "log1p"]}}
    assert spec_with(space=space).space[name].choices == ["a", "[b", "log1p"]


def test_the_defaults_are_written_out_and_read_again():
    spec = spec_with(strategy={"name": "pso"}, trials=20)
    written = spec.to_dict()
    assert written["strategy"]["population"] == 5, "a quarter of the trials"
    assert {"seed": 0, "retries": 5, "lease_s": 60.0, "distinct": True}.items() <= written.items()
    assert ExternalSpec.from_dict(written).to_dict() == written


def test_the_mapping_is_not_changed():
    given = {"name": "s", "space": {"x": dict(X)}, "direction": "maximize"}
    ExternalSpec.from_dict(given)
    assert given == {"name": "s", "space": {"x": X}, "direction": "maximize"}
