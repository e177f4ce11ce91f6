"""Every bad experiment is refused in one line: file (or option), key, rule, value, remedy."""

from pathlib import Path

import pytest

from tuner.errors import ExperimentError, InputError, SpaceError
from tuner.experiment import Experiment, Override, dump_yaml, parse_value

REMEDIES = ("write", "choose", "did you mean", "check the path", "correct", "remove", "put it")
REMEDIES += ("change it", "swap them", "drop", "move it", "save the file", "leave out", "give")

SPACE = {"type": "int", "low": 4, "high": 8}
ABSENT = object()


def experiment(**changes):
    block = {"path": "air.csv", "target": "y"}
    return {"name": "air", "data": block, "search_space": {"hidden_size": dict(SPACE)}} | changes


def changed(key, value):
    raw = experiment()
    *parents, last = key.split(".")
    block = raw
    for parent in parents:
        block = block.setdefault(parent, {})
    if value is ABSENT:
        del block[last]
    else:
        block[last] = value
    return raw


def message(error):
    text = str(error.value)
    assert "\n" not in text
    assert any(remedy in text for remedy in REMEDIES), f"no remedy: {text}"
    for foreign in ("Input should", "pydantic", "valid integer", "None", "PydanticUndefined"):
        assert foreign not in text
    return text


def refusal(path, *overrides):
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path, overrides)
    return message(error)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("# a comment\n", ["is empty"]),
        ("null", ["is empty"]),
        ("- a\n- b\n", ["must be a mapping", "a list"]),
        ("hello", ["must be a mapping", "a text"]),
        ("3", ["must be a mapping", "got 3"]),
        ("a: [1\nb: {", ["is not YAML", "line 2, column 2"]),
        ("\tname: x", ["is not YAML", "line 1"]),
        ("a: *b", ["is not YAML", "undefined alias"]),
        ("a: 1\n---\nb: 2\n", ["is not YAML", "single document"]),
        ("a: !!python/object x", ["is not YAML", "tag"]),
        ("name: x\x00y", ["is not YAML", "#x0000"]),
        ("a: 1960-13-01", ["cannot be read: month must be in 1..12", "in quotes"]),
        ("[" * 5000, ["is not YAML"]),
        ("name: a\nname: b\n", ["is not YAML", 'duplicate key "name"', "remove one"]),
        ("data: {path: a, path: b}", ["is not YAML", 'duplicate key "path"']),
        ("1: 2", ["keys must be texts", "got 1"]),
    ],
)
def test_a_file_that_is_no_mapping_of_keys_is_refused(text, parts):
    path = Path("e.yaml")
    path.write_text(text)
    refused = refusal(path)
    assert refused.startswith("e.yaml: ")
    for part in parts:
        assert part in refused


def test_a_missing_or_binary_file_or_a_folder_is_refused(folder):
    assert refusal(Path("nope.yaml")).startswith("nope.yaml: no such experiment file")
    assert refusal(folder).startswith(f"{folder}: is a folder")
    Path("latin.yaml").write_bytes("name: Zürich\n".encode("latin-1"))
    assert "got byte 0xfc in line 1" in refusal(Path("latin.yaml"))
    assert "cannot be read" in refusal(Path("x" * 300))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("nmae", "x", "nmae: unknown key 'nmae'; did you mean 'name'?"),
        ("budget.trails", 3, "budget.trails: unknown key 'trails'; did you mean 'trials'?"),
        ("name", ABSENT, "name: is required; write `name: sales`, say"),
        ("name", " a b", "name: must not begin with '.', '-' or a space"),
        ("name", "../x", "name: must not hold '/', which file names cannot have everywhere"),
        ("name", "x" * 201, "name: must have at most 200 bytes in UTF-8, has 201"),
        ("data", ABSENT, "data: is required; write `data: {path: data/series.csv, target: sales}`"),
        ("data", "air.csv", "data: must be a block of keys, got 'air.csv'; write `data: {path:"),
        ("data.path", ABSENT, "data.path: is required"),
        ("data.path", "", "data.path: must have at least 1 character, got ''"),
        ("data.path", 3, "data.path: must be a text, got 3"),
        ("data.path", "a\0b", "data.path: "),
        ("data.target", ABSENT, "data.target: is required; write `target: sales`"),
        ("data.target", ["y", "y"], "data.target: names must differ, got 'y' twice; remove one"),
        ("data.features", [], "data.features: must have at least 1 item, got []"),
        ("data.features", [1], "data.features.0: must be a text, got 1; put it in quotes"),
        (
            "data.transform",
            "lgo",
            "must be a transform, or a list of several, got 'lgo'; did you mean 'log'?",
        ),
        ("data.transform", "sqrt", "got 'sqrt'; choose from: none, log, box_cox, difference, "),
        ("data.scale", "std", "data.scale: unknown scale 'std'"),
        ("data.split.validation", 1.5, "a fraction must be between 0 and 1, got 1.5; write 0.2"),
        ("data.split.validation", 0, "a number of rows must be at least 1, got 0; write 24"),
        ("data.split.test", "soon", "or an ISO date, got 'soon'; write 0.2, 24 or 1960-01-01"),
        ("data.split.test", None, "or an ISO date, got null; write 0.2, 24 or 1960-01-01"),
        ("task.window", 0, "task.window: must be at least 1, got 0; write `window: 12`, say"),
        ("task.season", 1.5, "task.season: must be a whole number, got 1.5; write `season: 12`"),
        ("task", [1], "task: must be a block of keys, got [1]; write `task: {kind: forecast}`"),
        ("budget.trials", -1, "budget.trials: must be at least 1, got -1; write `trials: 40`, say"),
        ("budget.trials", "x", "budget.trials: must be a whole number, got 'x'"),
        ("budget.trials", True, "budget.trials: must be a whole number, got true"),
        ("budget.timeout", "soon", "budget.timeout: must be a time, got 'soon'; write 90s, 10m or"),
        ("budget.timeout", "0s", "budget.timeout: must be above 0, got '0s'"),
        ("budget.timeout", float("inf"), "budget.timeout: must be a finite number, got inf"),
        ("budget.timeout", True, "budget.timeout: must be a number, got true"),
        ("budget.trial_timeout", "-1s", "budget.trial_timeout: must be a time, got '-1s'"),
        ("budget.retries", -1, "budget.retries: must be at least 0, got -1"),
        ("resources.gpus", 1.5, "resources.gpus: must be a part of one GPU or a whole number"),
        ("resources.cpus", 0, "resources.cpus: must be above 0, got 0"),
        ("asynchronous", "yes", "asynchronous: must be true or false, got 'yes'"),
        ("hyperparameters.hidden", 3, "unknown key 'hidden'; did you mean 'hidden_size'?"),
        ("hyperparameters.dropout", 1, "must be below 1, got 1; write `dropout: 0.0`, say"),
        ("hyperparameters.dropout", "0.1", "must be a number, got '0.1'"),
        ("hyperparameters.bidirectional", "yes", "must be true or false, got 'yes'"),
        ("hyperparameters.gradient_clip", float("inf"), "must be a finite number, got inf"),
        (
            "hyperparameters.hidden_size",
            99,
            "hyperparameters.hidden_size: the search starts at this value, which must lie in "
            "search_space.hidden_size, got 99; move it or widen the space",
        ),
        ("strategy", "woa", "strategy: must be a block of keys, got 'woa'; write `strategy: {name"),
        ("strategy", {}, "strategy.name: is required; choose from: random, tpe, "),
        ("strategy.name", "wao", "strategy.name: unknown strategy 'wao'; did you mean 'woa'?"),
        ("strategy", {"name": "tpe", "population": 3}, "strategy.population: unknown key"),
        ("strategy", {"name": "woa", "population": 1}, "strategy.population: must be at least 2"),
        ("strategy", {"name": "woa", "a_start": 1, "a_end": 2}, "strategy.a_end: must not be"),
        ("budget.Trials", 3, "unknown key 'Trials'; did you mean 'trials'?"),
        ("objective.metric", "RMSE", "unknown metric 'RMSE'; did you mean 'rmse'?"),
        ("objective.metric", "rms", "objective.metric: unknown metric 'rms'; did you mean 'rmse'?"),
        ("pruner.name", "medain", "pruner.name: unknown pruner 'medain'; did you mean 'median'?"),
        ("finalists.top", -1, "finalists.top: must be at least 0, got -1; write `top: 3`, say"),
        ("seed", -1, "seed: must be at least 0, got -1; write `seed: 0`, say"),
        ("seed", 2**40, "seed: must be at most 4294967295"),
        ("recorded", {}, "recorded.study: is required"),
    ],
)
def test_a_key_that_breaks_a_rule_is_refused(key, value, text):
    path = Path("e.yaml")
    path.write_text(dump_yaml(changed(key, value)))
    refused = refusal(path)
    assert refused.startswith("e.yaml: ")
    assert text in refused


@pytest.mark.parametrize(
    ("name", "domain", "text"),
    [
        ("hidden_size", {"type": "int", "low": 9, "high": 2}, "low must be below high, got low=9"),
        ("hidden_size", {"type": "int", "low": 0, "high": 2}, "must be at least 1, got 0"),
        ("hidden_size", SPACE | {"low": 0, "log": True}, "log needs low above 0, got low=0"),
        ("hidden_size", SPACE | {"step": 0}, "hidden_size.step: must be at least 1, got 0"),
        ("hidden_size", SPACE | {"step": 2, "log": True}, "log and step exclude each other"),
        ("hidden_size", SPACE | {"low": 1.5}, "hidden_size.low: must be a whole number, got 1.5"),
        ("hidden_size", SPACE | {"high": 20_000}, "must be at most 8192, got 20000"),
        ("hidden_size", {"type": "int", "low": 1}, "hidden_size.high: is required; write `high:"),
        ("hidden_size", {"low": 1, "high": 2}, "hidden_size.type: is required; choose from: int"),
        ("hidden_size", SPACE | {"type": "integer"}, "unknown type 'integer'; did you mean 'int'?"),
        ("hidden_size", SPACE | {"type": "float"}, "is a whole number, got 'float'; write `type:"),
        ("hidden_size", [1, 2], "must be a block of keys, got [1, 2]; write `hidden_size: {type:"),
        ("hidden_size", {"type": "categorical", "choices": []}, "choices: must have at least 1"),
        ("hidden_size", {"type": "categorical", "choices": [4, 4]}, "choices: must differ, got 4"),
        ("dropout", {"type": "categorical", "choices": [0.1, 1e-1]}, "must differ, got 0.1 twice"),
        ("learning_rate", {"type": "categorical", "choices": [1, 1.0]}, "must differ, got 1.0 tw"),
        ("hidden_size", {"type": "categorical", "choices": [4, "a"]}, "a whole number, got 'a'"),
        (
            "hidden_size",
            {"type": "categorical", "choices": [[16, 8], 16]},
            "got '[16, 8]'; write hidden_size_1 and hidden_size_2",
        ),
        ("hidden_size", {"type": "categorical", "choices": [None]}, "got null; remove it"),
        ("hiden_size", SPACE, "unknown hyperparameter 'hiden_size'; did you mean 'hidden_size'?"),
        ("learning_rate", {"type": "float", "low": 0, "high": 1, "log": True}, "log needs low"),
        ("learning_rate", {"type": "float", "low": "1e-5", "high": 1}, "must be a number, got '1e"),
        (
            "learning_rate",
            {"type": "categorical", "choices": ["0.1"]},
            "must be a number, got '0.1",
        ),
        ("dropout", {"type": "float", "low": 0.0, "high": 1.0}, "must be below 1, got 1.0"),
        (
            "dropout",
            {"type": "float", "low": float("nan"), "high": 0.5},
            "a finite number, got nan",
        ),
        ("bidirectional", {"type": "int", "low": 0, "high": 1}, "must be true or false, got 0"),
    ],
)
def test_an_invalid_domain_is_refused_where_it_is_written(name, domain, text):
    path = Path("e.yaml")
    path.write_text(dump_yaml(experiment(search_space={name: domain})))
    with pytest.raises(SpaceError) as error:
        Experiment.load(path)
    refused = message(error)
    assert refused.startswith(f"e.yaml: search_space.{name}")
    assert text in refused

    Path("spaces").mkdir()
    Path("spaces/my.yaml").write_text(dump_yaml({name: domain}))
    path.write_text(dump_yaml(experiment(search_space="spaces/my.yaml")))
    with pytest.raises(SpaceError) as error:
        Experiment.load(path)
    refused = message(error)
    assert refused.startswith(f"spaces/my.yaml: {name}")
    assert text in refused


@pytest.mark.parametrize(
    ("key", "value", "origin", "begins", "remedy"),
    [
        ("budget.trials", -1, "--trials", "--trials: budget.trials: ", "write `--trials 40`, say"),
        ("seed", -1, "--seed", "--seed: seed: ", "write `--seed 0`, say"),
        ("budget.timeout", "0s", "--timeout", "--timeout: budget.timeout: ", "`--timeout 10m`"),
        ("strategy", {"name": "wao"}, "--strategy", "--strategy: strategy.name: ", "mean 'woa'?"),
        ("budget.epochs", 0, "--set", "--set: budget.epochs: ", "`--set budget.epochs=100`"),
        ("bugdet.epochs", 5, "--set", "--set: bugdet: ", "did you mean 'budget'?"),
        ("seed.x", 5, "--set", "--set: seed.x: seed is a value", "leave out 'x'"),
        ("a..b", 5, "--set", "--set: 'a..b' is no dotted key", "write budget.epochs=50"),
        ("search_space.hidden_size.low", 99, "--set", "--set: search_space.hidden_size: ", "swap"),
    ],
)
def test_a_bad_option_value_is_refused_by_the_options_name(key, value, origin, begins, remedy):
    path = Path("e.yaml")
    path.write_text(dump_yaml(experiment() | {"seed": 1}))
    refused = refusal(path, Override(key, value, origin))
    assert refused.startswith(begins)
    assert remedy in refused


def test_the_value_of_a_set_option_must_be_yaml():
    with pytest.raises(InputError) as error:
        parse_value("[1", "--set data.features")
    assert message(error).startswith("--set data.features: must be YAML, got '[1': ")


def test_the_first_broken_rule_is_reported_and_others_counted():
    path = Path("e.yaml")
    path.write_text(dump_yaml(experiment(budget={"trials": -1, "epochs": -1, "patience": 0})))
    refused = refusal(path)
    assert refused.startswith("e.yaml: budget.trials: ")
    assert refused.endswith("(and 2 more)")
