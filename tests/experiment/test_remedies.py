"""Each refusal says what to write, and what it says works."""

import copy
import re

import pytest

from tuner.errors import ExperimentError
from tuner.experiment import Experiment, Override, dump_yaml, parse_value
from tuner.experiment.data import Data, Split, Task
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.schema import Budget, Finalists, Objective, Resources, Training
from tuner.experiment.strategy import PRUNERS
from tuner.strategies.registry import STRATEGIES


def refusal(path, setting, *overrides):
    """Set one dotted key of an experiment, and return why it is refused."""
    raw = {"name": "a", "data": {"path": "a.csv", "time": "t", "target": "y"}}
    key, _, value = setting.partition("=")
    *parents, last = key.split(".")
    block = raw
    for parent in parents:
        block = block.setdefault(parent, {})
    block[last] = parse_value(value, key)
    path.write_text(dump_yaml(raw))
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path, overrides)
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            "data.lags={temperature: [0, 24]}",
            "data.lags.temperature.0: must be at least 1, got 0; write 1, say",
        ),
        (
            "data.lags={temperature: [1, a]}",
            "data.lags.temperature.1: must be a whole number, got 'a'; write 24, say",
        ),
        (
            "task.quantiles=[10, 50, 90]",
            "task.quantiles.0: must be below 1, got 10; write 0.1, say (and 2 more)",
        ),
        (
            "data.features=[1]",
            "data.features.0: must be a text, got 1; put it in quotes, or remove it",
        ),
        (
            "search_space={pooling: {type: categorical, choices: [2020-01-01]}}",
            "search_space.pooling.choices.0: must be a number, a text, true or false, "
            "got 2020-01-01; put it in quotes, or remove it",
        ),
        (
            "data.calendar=[hours]",
            "data.calendar.0: unknown calendar 'hours'; did you mean 'hour'?",
        ),
        ("data.calendar=[3]", "unknown calendar 3; choose from: hour, weekday, month"),
    ],
)
def test_an_element_of_a_list_is_refused_by_its_own_rule(tmp_path, setting, text):
    assert refusal(tmp_path / "e.yaml", setting).endswith(text)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("data.lags={x: 12}", "data.lags.x: must be a list, got 12; write `x: [1, 24]`, say"),
        ("data.lags=12", "must be a block of keys, got 12; write `lags: {price: [1, 24]}`, say"),
        (
            "data.lags={1: [1]}",
            "data.lags.1: must be a text, got 1; put it in quotes, or remove it",
        ),
        ("data.lags={'': [x]}", "must be a whole number, got 'x'; write 1, say"),
        ("data.lags={'': []}", "must have at least 1 character, got ''; change it, or remove it"),
    ],
)
def test_unknown_keys_are_reported_at_the_right_depth(tmp_path, setting, text):
    assert refusal(tmp_path / "e.yaml", setting).endswith(text)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("pooling", "[last, max]", "`pooling: {type: categorical, choices: [last, max]}`, say"),
        ("hidden_size", "[8, 16]", "`hidden_size: {type: categorical, choices: [8, 16]}`, say"),
        ("bias", "[true, false]", "`bias: {type: categorical, choices: [true, false]}`, say"),
        ("pooling", "last", "for one value write hyperparameters.pooling: last"),
        ("dropout", "0.1", "for one value write hyperparameters.dropout: 0.1"),
        ("cell", "null", "`cell: {type: categorical, choices: [lstm, gru, rnn, peephole]}`, say"),
        ("cell", "[lstm, lsmt]", "choices: [lstm, gru, rnn, peephole]}`, say"),
        ("bias", "null", "write `bias: {type: categorical, choices: [false, true]}`, say"),
        ("learning_rate", "null", "{type: float, low: 0.0001, high: 0.01}`, say"),
        ("dropout", "null", "write `dropout: {type: float, low: 0.0, high: 0.5}`, say"),
        ("hidden_size", "[8, a]", "write `hidden_size: {type: int, low: 8, high: 128}`, say"),
        ("hidden_size_1", "8", "write `hidden_size_1: {type: int, low: 8, high: 128}`, say"),
    ],
)  # fmt: skip
def test_a_bad_domain_gets_an_example_for_its_parameter(tmp_path, name, value, remedy):
    refused = refusal(tmp_path / "e.yaml", f"search_space.{name}={value}")
    assert refused.startswith(f"search_space.{name}: must be a block of keys, got ")
    assert refused.endswith(f"; {remedy}" if remedy.startswith(("write", "for")) else remedy)


def test_a_list_set_as_an_option_is_answered_with_that_option(tmp_path):
    override = Override("search_space.pooling", ["last", "max"], "--set")
    assert refusal(tmp_path / "e.yaml", "seed=0", override) == (
        "--set: search_space.pooling: must be a block of keys, got ['last', 'max']; write "
        "`--set 'search_space.pooling={type: categorical, choices: [last, max]}'`, say"
    )


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ("data.target=3", "must be a text or a list, got 3; write `target: sales`, say"),
        ("data.target=[]", "must have at least 1 item, got []; write `target: sales`, say"),
        ("hyperparameters.hidden_size=8.5", "must be a whole number or a list, got 8.5; write "),
    ],
)
def test_a_value_outside_a_union_is_told_every_kind(tmp_path, setting, refused):
    told = refusal(tmp_path / "e.yaml", setting)
    assert told.startswith(f"{setting.partition('=')[0]}: {refused}")


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        (
            "data.target=[3]",
            "data.target.0: must be a text, got 3; put it in quotes, or remove it",
        ),
        (
            "data.split.validation={folds: x}",
            "data.split.validation.folds: must be a whole number, got 'x'; write `folds: 3`, say",
        ),
        (
            "data.split.validation={gap: x}",
            "data.split.validation.gap: must be 'auto' or a whole number, got 'x'; "
            "write `gap: auto`, say",
        ),
        (
            "data.split.validation={gap: -1}",
            "data.split.validation.gap: must be at least 0, got -1; write `gap: auto`, say",
        ),
        (
            "data.split.test={folds: 3}",
            "data.split.test: must be a fraction, a number of rows or an ISO date, "
            "got {'folds': 3}; write 0.2, 24 or 1960-01-01",
        ),
        (
            "data.split.validation={size: 2020-01-01}",
            "data.split.validation.size: must be a number, got '2020-01-01'; "
            "write `size: 0.1`, say",
        ),
        (
            "hyperparameters.hidden_size=[8, a]",
            "hyperparameters.hidden_size.1: must be a whole number, got 'a'; write 32, say",
        ),
        (
            "strategy={name: pso, velocity_clamp: [-2, 1]}",
            "strategy.velocity_clamp.0: must be at least -1, got -2; write 0.5, say",
        ),
        (
            "strategy={name: pso, velocity_clamp: [0]}",
            "strategy.velocity_clamp.1: is required; write 0.5, say",
        ),
        (
            "strategy={name: pso, velocity_clamp: [0, 1, 1]}",
            "strategy.velocity_clamp: must have at most 2 items, got [0, 1, 1]; "
            "write `velocity_clamp: 0.5`, say",
        ),
    ],
)
def test_of_a_union_the_member_that_the_value_fits_best_is_told(tmp_path, setting, refused):
    assert refusal(tmp_path / "e.yaml", setting) == refused


BASE = {
    "name": "a",
    "data": {"path": "a.csv", "time": "t", "id": "shop", "target": "y"},
    "search_space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5}},
}

BAD = [
    None, True, 0, -1, 7, 10**9, 0.5, -0.5, 1e300, float("inf"), "", "x", "12", "1e3", [], [1],
    ["x"], ["x", "x"], {}, {"x": 1}, [[]], [None],
]  # fmt: skip
"""Values that some key refuses."""

MOST = 5
"""Remedies, one after another."""

SECTIONS = {
    "data": Data, "data.split": Split, "task": Task, "hyperparameters": Hyperparameters,
    "budget": Budget, "finalists": Finalists, "training": Training, "resources": Resources,
    "objective": Objective,
}  # fmt: skip


def keys():
    found = [f"{at}.{name}" for at, section in SECTIONS.items() for name in section.model_fields]
    found += ["name", "seed", "asynchronous", "data", "task", "search_space", "strategy", "pruner"]
    for name, strategy in STRATEGIES.items():
        found += [f"strategy:{name}.{key}" for key in strategy.model_fields if key != "name"]
    for pruner in PRUNERS:
        name = pruner.model_fields["name"].default
        found += [f"pruner:{name}.{key}" for key in pruner.model_fields if key != "name"]
    found += [f"search_space.dropout.{key}" for key in ("type", "low", "high", "step", "log")]
    return found


def put(raw, key, value):
    """Set a dotted key; `strategy:pso.population` is one of that strategy."""
    raw = copy.deepcopy(raw)
    *parents, last = key.split(".")
    block = raw
    for parent in parents:
        parent, _, name = parent.partition(":")
        block = block.setdefault(parent, {"name": name} if name else {})
    block[last] = value
    return raw


def refusal_of_file(raw, folder):
    path = folder / "e.yaml"
    path.write_text(dump_yaml(raw), encoding="utf-8")
    try:
        Experiment.load(path)
    except ExperimentError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def remedied(raw, message):
    """Return the experiment with what a message says; None where a machine cannot tell."""
    key, _, problem = message.partition(": ")
    remedy = problem.rpartition("; ")[2]
    remedy = re.sub(r" \(and \d+ more\)$", "", remedy)
    path = key.split(".")
    if " unknown " in message:  # one of several is chosen
        return None
    if found := re.match(r"write ([a-z_]+\.[a-z_.]+): (\{.*\}|[^ ,]+)", remedy):
        try:
            return put(raw, found[1], parse_value(found[2], "remedy"))
        except (ExperimentError, TypeError):
            return None
    if remedy.startswith("remove it"):
        return changed(raw, path, lambda block, at: block.pop(at))
    if remedy == "put it in quotes, or remove it":
        return changed(raw, path, lambda block, at: block.__setitem__(at, str(block[at])))
    if found := re.search(r"write `(.+?)`", remedy):
        text = found[1].removeprefix("--set ")
        said = parse_value(text, "remedy")
        if not isinstance(said, dict) or len(said) != 1:
            return None
        ((name, value),) = said.items()
        return changed(raw, [*path[:-1], name], lambda block, at: block.__setitem__(at, value))
    if found := re.match(r"write (.+?)(?:, say.*|,? or .*)?$", remedy):
        try:
            value = parse_value(found[1], "remedy")
        except ExperimentError:
            return None
        if isinstance(value, str) and " " in value:
            return None
        return changed(raw, path, lambda block, at: block.__setitem__(at, value))
    return None


def changed(raw, path, change):
    raw = copy.deepcopy(raw)
    block = raw
    for step in path[:-1]:
        at = int(step) if isinstance(block, list) else step
        try:
            block = block[at]
        except (KeyError, IndexError, TypeError):
            return None
    at = int(path[-1]) if isinstance(block, list) and path[-1].isdigit() else path[-1]
    try:
        change(block, at)
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    return raw


@pytest.mark.parametrize("key", keys())
def test_who_types_what_is_offered_comes_to_an_experiment(key, tmp_path):
    for value in BAD:
        raw = put(BASE, key, value)
        told = []
        while (message := refusal_of_file(raw, tmp_path)) is not None:
            assert message not in told, f"{value!r} leads in a circle: {told}"
            told.append(message)
            assert len(told) <= MOST, f"{value!r} leads nowhere: {told}"
            mended = remedied(raw, message)
            if mended is None:  # no machine can tell
                break
            raw = mended
