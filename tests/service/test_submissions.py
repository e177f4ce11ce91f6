"""Experiments of clients: nothing of their choosing is opened, and checking them is quick."""

import datetime as dt
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import ExperimentError, InputError
from tuner.experiment import dump_yaml
from tuner.service.access import Owner
from tuner.service.problems import Problem, not_found
from tuner.service.settings import Limits, Settings
from tuner.service.submissions import (
    SubmissionBody,
    client_paths,
    datasets_of,
    load_experiment,
    parse_experiment,
    parse_submission,
)

SHA, OTHER = "ab" * 32, "cd" * 32
ANA = Owner("ana", limits=Limits(trials=1000))
SOON_S = 5  # on a busy machine; alone, each takes less than one


class Uploaded:
    """Two files of one owner."""

    def __init__(self, root):
        self.root = root

    def path_of(self, owner, dataset):
        if owner != "ana" or dataset not in (SHA, OTHER):
            raise not_found("dataset", dataset)
        return self.root / "datasets" / owner / dataset / "sales.csv"


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Parse a submission; nothing is imported, started or read meanwhile."""

    def never(*_, **__):
        raise AssertionError("the service opens what a client names")

    for name in ("tuner.experiment.cells._inspected", "tuner.experiment.experiment.read_mapping"):
        monkeypatch.setattr(name, never)

    def parse(experiment, *, allow_code=False, owner=ANA, **body):
        settings = Settings(root=tmp_path, allow_code=allow_code)
        body = SubmissionBody.model_validate({"experiment": experiment} | body)
        return parse_submission(body, owner, Uploaded(tmp_path), settings)

    return parse


def experiment(path=f"dataset:{SHA}", **blocks):
    return {"name": "air", "data": {"path": path, "target": "y"}} | blocks


def text(extra):
    return f"name: air\ndata: {{path: dataset:{SHA}, target: y}}\n{extra}"


def test_a_dataset_stands_in_place_of_a_path(parse, tmp_path):
    split = {"validation": 0.2, "test_file": "later.csv"}
    raw = {"name": "air", "data": {"path": "sales.csv", "target": "y", "split": split}}
    found = parse(raw, datasets={"sales.csv": SHA, "later.csv": OTHER})
    folder = tmp_path / "datasets/ana"
    assert found.name == "air-fixed-0"
    assert found.experiment.data.path == str(folder / SHA / "sales.csv")
    assert found.experiment.data.split.test_file == str(folder / OTHER / "sales.csv")
    assert datasets_of(found.spec) == [SHA, OTHER]
    assert str(tmp_path) not in json.dumps(found.spec)
    assert load_experiment(found.spec, "ana", Uploaded(tmp_path)) == found.experiment
    assert client_paths(found.spec, "ana", Uploaded(tmp_path)) == {
        str(folder / SHA / "sales.csv"): "sales.csv",
        str(folder / OTHER / "sales.csv"): "later.csv",
    }
    assert raw["data"]["path"] == "sales.csv"  # what was given stays


def test_yaml_and_json_of_an_experiment_are_the_same_search(parse):
    raw = experiment(search_space={"hidden_size": {"type": "int", "low": 2, "high": 9}})
    raw["data"] |= {"time": "t", "split": {"test": "1960-01-01"}}
    written = dump_yaml(raw).replace("'1960-01-01'", "1960-01-01")
    assert ": 1960-01-01" in written
    assert parse(written) == parse(raw)
    raw["data"]["split"]["test"] = dt.date(1960, 1, 1)
    json.dumps(parse(dump_yaml(raw)).spec)


PATHS = {
    "absolute": experiment("/etc/passwd"),
    "relative": experiment("../ben/" + OTHER + "/a.csv"),
    "URL": experiment("http://127.0.0.1:8080/v1/datasets"),
    "s3": experiment("s3://bucket/key.csv"),
    "file URL": experiment("file:///etc/passwd"),
    "not mapped": experiment("sales.csv"),
    "no id": experiment("dataset:"),
    "short id": experiment("dataset:" + SHA[:-1]),
    "id and path": experiment(f"dataset:{SHA}/../../ben/a.csv"),
    "capitals": experiment("dataset:" + SHA.upper()),
    "line end": experiment(f"dataset:{SHA}\n"),
    "zero byte": experiment("a\0b"),
    "number": experiment(7),
    "list": experiment([f"dataset:{SHA}"]),
    "null": experiment(None),
    "test file": experiment() | {"data": experiment()["data"] | {"split": {"test_file": "/etc/x"}}},
    "test list": experiment() | {"data": experiment()["data"] | {"split": {"test_file": ["/e"]}}},
    "space file": experiment(search_space="/etc/hosts"),
    "space URL": experiment(search_space="https://example.org/space.yaml"),
    "zone": experiment() | {"data": experiment()["data"] | {"read": {"timezone": "/etc/passwd"}}},
    "zone up": experiment() | {"data": experiment()["data"] | {"read": {"timezone": "../../etc"}}},
    "codec": experiment() | {"data": experiment()["data"] | {"read": {"encoding": "os.path"}}},
}


@pytest.mark.parametrize("what", PATHS)
def test_a_path_of_a_client_is_refused(parse, what):
    with pytest.raises(ExperimentError) as refused:
        parse(PATHS[what])
    line = str(refused.value)
    assert refused.value.key in (
        "data.path",
        "data.split.test_file",
        "search_space",
        "data.read.timezone",
        "data.read.encoding",
    ), line
    assert "\n" not in line
    assert len(line) < 600


def test_a_dataset_of_another_owner_does_not_exist(parse):
    with pytest.raises(Problem, match="no such dataset") as refused:
        parse(experiment(), owner=Owner("ben"))
    assert refused.value.status == 404
    with pytest.raises(Problem):
        parse(experiment("a.csv"), datasets={"a.csv": "ef" * 32})


def of_space(name, choices):
    return {"search_space": {name: {"type": "categorical", "choices": choices}}}


def of_data(**keys):
    return experiment() | {"data": experiment()["data"] | keys}


CODE = {
    "cell": experiment(hyperparameters={"cell": "os:system"}),
    "searched cell": experiment(**of_space("cell", ["lstm", "os:system"])),
    "loss": experiment(hyperparameters={"loss": "os:system"}),
    "searched loss": experiment(**of_space("loss", ["mse", "os:system"])),
    "metric": experiment(objective={"metric": "minimize os:system"}),
    "spaced metric": experiment(objective={"metric": "maximize  os.path:exists "}),
    "metrics": experiment(objective={"metrics": ["minimize os:system", "weights"]}),
    "with declarations": experiment(
        hyperparameters={"cell": "os:system"},
        cells=[{"name": "os:system", "whole": True, "takes": [], "keys": {}}],
    ),
    "recorded": experiment(
        hyperparameters={"cell": "os:system"},
        recorded={
            "study": "a", "seed": 1, "score": 1.0, "metric": "rmse", "data_sha256": "", "rows": 1,
            "versions": {}, "command": "",
        },
    ),
    "set in YAML": text(
        'search_space: {loss: {type: categorical, choices: !!set {"os:system": null}}}'
    ),
    "ordered map": text('search_space: !!omap [loss: {type: categorical, choices: ["os:system"]}]'),
    "alias": text('search_space: {loss: {type: categorical, choices: [&a "os:system", *a]}}'),
    "merge key": text('x: &x {cell: "os:system"}\nhyperparameters: {<<: *x}'),
    "python tag": text("hyperparameters: !!python/object/apply:os.system [ls]"),
}  # fmt: skip


@pytest.mark.parametrize("what", CODE)
def test_code_of_a_client_is_refused_before_it_is_imported(parse, what):
    with pytest.raises(ExperimentError):
        parse(CODE[what])


def test_code_is_named_where_the_server_allows_it(parse, monkeypatch):
    seen = []
    found = {"keys": {}, "whole": False, "takes": []}
    monkeypatch.setattr(
        "tuner.experiment.cells._inspected", lambda argument, name: seen.append(name) or found
    )
    assert parse(CODE["cell"], allow_code=True).experiment.hyperparameters.cell == "os:system"
    assert seen == ["os:system"]


def test_a_study_cannot_start_from_a_file(parse):
    for name in ("../ben/a", "/etc/passwd", "a.journal/../b", "a\0b", "", "x" * 300):
        with pytest.raises(InputError):
            parse(experiment(), **{"from": [name]})


SLOW = {
    "many keys": experiment(**{f"k{i}": 1 for i in range(20_000)}),
    "many keys in YAML": "\n".join(f"k{i}: 1" for i in range(20_000)),
    "many hyperparameters": experiment(hyperparameters={f"k{i}": 1 for i in range(450)}),
    "many features": of_data(features=[f"f{i}" for i in range(9900)]),
    "many choices": experiment(**of_space("transform", [f"z{i}" for i in range(9000)])),
    "nested choices": experiment(**of_space("lags", [{"a": [i + 1]} for i in range(100)])),
    "lists of choices": experiment(**of_space("transform", [["log"] * 90] * 90)),
    "laughs": text(
        "a0: &a0 [1]\n" + "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 30))
    ),
    "merges": text(
        "a0: &a0 {k: 1}\n"
        + "\n".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1}, ' * 9}]}}" for i in range(1, 30))
    ),
    "deep": text("x: " + "[" * 100_000),
    "deep list": experiment(x=json.loads("[" * 60 + "]" * 60)),
    "long text": experiment(x="x" * 200_000),
    "long key": experiment(**{"x" * 200_000: 1}),
    "long name": experiment() | {"name": "x" * 200_000},
    "long format": experiment()
    | {"data": {"path": f"dataset:{SHA}", "target": "y", "read": {"date_format": "%d" * 4000}}},
    "long time": experiment(budget={"timeout": "1" * 9000}),
    "long number": text("seed: " + "9" * 200_000),
    "long fraction": text("seed: 0x" + "f" * 200_000),
    "long path": experiment("x" * 200_000),
    "long mapped path": experiment("x" * 9000),
    "tiny step": experiment(
        search_space={"dropout": {"type": "float", "low": 0.0, "high": 0.9, "step": 1e-300}}
    ),
    "expression": experiment(objective={"metric": "minimize " + "(" * 900 + "forecast" + ")" * 90}),
    "power": experiment(hyperparameters={"loss": "9**9**9**9"}),
    "wide": experiment()
    | {
        "data": {
            "path": f"dataset:{SHA}", "target": "y",
            "wide": {"id": "a", "value": "y", "columns": "*a" * 4900 + "?"},
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("what", SLOW)
def test_a_large_experiment_is_answered_at_once(parse, what):
    began = time.monotonic()
    try:
        parse(SLOW[what])
    except (InputError, Problem) as refused:
        assert "\n" not in str(refused)  # noqa: PT017
    else:
        assert what in ("many features", "nested choices", "wide")
    assert time.monotonic() - began < SOON_S


def test_too_many_trials_are_refused(parse):
    for budget in ({"trials": 1001}, {"trials": None, "timeout": "10m"}):
        with pytest.raises(Problem, match="at most 1,000 here") as refused:
            parse(
                experiment(
                    budget=budget,
                    search_space={"dropout": {"type": "float", "low": 0.0, "high": 0.5}},
                )
            )
        assert refused.value.status == 422


Values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
Blocks = st.sampled_from(
    ["name", "data", "task", "hyperparameters", "search_space", "strategy", "budget", "pruner",
     "objective", "training", "resources", "finalists", "seed", "recorded", "cells", "x"]
)  # fmt: skip


@given(st.dictionaries(Blocks, Values, max_size=4))
def test_any_json_is_read_or_refused_in_one_line(tmp_path_factory, blocks):
    root = tmp_path_factory.getbasetemp()
    try:
        parse_experiment(experiment() | blocks, {}, ANA, Uploaded(root), Settings(root=root))
    except (InputError, Problem) as refused:
        assert "\n" not in str(refused)  # noqa: PT017


@pytest.mark.parametrize(
    ("space", "key", "rule"),
    [
        (of_space("hidden_size", list(range(1, 502))), "hidden_size", "at most 500 items, got 501"),
        (of_space("transform", ["log"] * 101), "transform", "at most 100 items, got 101"),
        (of_space("transform", [["log"] * 40] * 50), None, "must hold at most 2,000 values"),
    ],
)
def test_a_search_space_beyond_a_limit_is_refused(parse, space, key, rule):
    with pytest.raises(ExperimentError, match=rule) as refused:
        parse(experiment(**space))
    expected = "search_space" if key is None else f"search_space.{key}.choices"
    assert refused.value.key == expected
