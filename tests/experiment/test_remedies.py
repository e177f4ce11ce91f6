"""Each refusal says what to write, and what it says works."""

import copy
import re

import pytest

from tuner.errors import ExperimentError
from tuner.experiment import Experiment, dump_yaml, parse_value
from tuner.experiment.data import Data, Split, Task
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.schema import PRUNERS, Budget, Finalists, Objective, Resources, Training
from tuner.strategies import STRATEGIES

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


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("key", keys())
def test_who_types_what_is_offered_comes_to_an_experiment(key, every, tmp_path):
    for value in BAD[len(key) % every :: every]:
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
