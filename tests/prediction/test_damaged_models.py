"""Model folders that somebody damaged, and gave checksums that fit: one line, and no traceback."""

import copy
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from helpers.model_cases import case
from helpers.model_folders import make_model, months, replace_file, rewrite
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from tuner.errors import DataError, ModelError
from tuner.prediction import load_model
from tuner.prediction.model import FORMAT

pytestmark = pytest.mark.filterwarnings("ignore::tuner.prediction.PredictionWarning")

STORES = pd.concat([months(40, seed).assign(store=f"s{seed}") for seed in (0, 1)])
DAYS = pd.concat([months(40)] * 3).assign(month=pd.date_range("2020-01-01", periods=120))
RUNS = pd.DataFrame(
    [
        {"run": i, "word": "abc"[(i + t) % 3], "code": (i + t) % 4, "x": i + t, "kind": "uv"[i % 2]}
        for i in range(20)
        for t in range(4)
    ]
)
TEXTS = pd.DataFrame({"name": ["Öl", "a b", "dad"] * 8, "kind": ["u", "v", "u"] * 8})
READ = {
    "encoding": "utf-8", "separator": ",", "missing_values": ["-999"], "units": ["%"],
    "date_format": "%Y-%m-%d", "sort": True,
}  # fmt: skip
SHOPS = {"id": "store", "time": "month"}
MODELS = {
    "series": case(
        STORES, {"window": 4, "horizon": 2, "quantiles": [0.1, 0.5]}, **SHOPS, target="sales",
        calendar=["month"], lags={"price": [1, 3]}, features=["price", "sales"], missing="ffill",
        read=READ,
    ),
    "resampled": case(
        DAYS, {"window": 4}, time="month", target=["sales", "price"], resample="2D",
        transform="difference",
    ),
    "series, each on its own scale": case(
        STORES, {"window": 4}, **SHOPS, target="sales", scale_by="series", missing="ffill",
        transform=["box_cox", {"seasonal_difference": 3}],
    ),
    "classes of coming rows": case(
        STORES.assign(size=["large" if s > 100 else "small" for s in STORES["sales"]]),
        {"kind": "classify", "window": 4}, **SHOPS, target="size", missing="ffill",
    ),
    "classes of numbered tokens": case(
        RUNS, {"kind": "classify"}, id="run", target="kind", tokens="code", vocabulary_size=4
    ),
    "labels of tokens": case(RUNS, {"kind": "label"}, id="run", target="kind", tokens="word"),
    "texts of texts": case(TEXTS, {"kind": "translate"}, text="name", target="kind"),
    "texts": case(TEXTS, {"kind": "classify"}, text="name", target="kind"),
    "values": case(
        RUNS.assign(run_=RUNS["run"] / 7), {"kind": "regress"}, id="run", target="run_",
        features=["x"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("original")
            frame, raw = MODELS[name]
            make_model(raw, folder, frame)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture
def made(originals, tmp_path, monkeypatch):
    """Make a model in the current folder, beside data.csv."""

    def make(name):
        here = tmp_path / "here"
        shutil.copytree(originals(name), here)
        monkeypatch.chdir(here)
        return here / "model"

    return make


JUNK = [
    None, True, False, 0, 1, -1, 2, 1.5, 1e-320, 1e308, 10**30, 10**400, float("nan"),
    "", "junk", "x\ny", "\ud800", "label", "classify", "regress", "-1h", "0D", "100000YS",
    [], [None], [[]], [{}], ["junk"], ["junk", "junk"], ["price", "sales"], ["\ud800"], [7], [0.5],
    {}, {"junk": None}, {"price": []}, {"price": [1, 1]}, {"price": [10**30]}, {"\ud800": [1]},
]  # fmt: skip
NOT_READ = {"tuner", "scale", "season", "hyperparameters", "validation", "onnx_difference"}
NOT_READ |= {"models", "trained_on", "names", "sha256"}  # names of what is scaled; the last is new


def places(value, path=()):
    """Every place in what was read from JSON that prediction reads as well."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value.keys() - NOT_READ:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def put(record, path, value):
    if not path:
        return value
    record = copy.copy(record)
    record[path[0]] = put(record[path[0]], path[1:], value)
    return record


def at(record, path):
    for key in path:
        record = record[key]
    return record


def alike(old, new):
    """Whether one may stand where the other does, as far as its type tells."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
    return numbers or type(old) is type(new) or old is None or new is None


@pytest.mark.parametrize("every", [18, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MODELS)
def test_a_changed_pipeline_json_predicts_or_is_refused(name, every, made):
    model = made(name)
    record = json.loads((model / "pipeline.json").read_text())
    n_refused = 0
    for i, path in enumerate(places(record)):
        for junk in JUNK[i % every :: every]:
            changed = put(record, path, junk)
            rewrite(model, **changed)
            where = f"{path}: {junk!r:.40}"
            refusal = ""
            try:
                load_model(model).predict("data.csv")
            except ModelError as error:
                refusal = str(error)
            except DataError:  # another column or frequency: the data is not of that model
                pass
            if refusal:
                n_refused += 1
                assert re.fullmatch(r"model/\S+: .*; .*", refusal), where  # one line
            else:
                assert alike(at(record, path), junk), where
    assert n_refused > 500 / every
    rewrite(model, **record)
    assert len(load_model(model).predict("data.csv"))


def link_to_a_pipe(model):
    (model / "model.onnx").unlink()
    os.mkfifo(model / "pipe")
    (model / "model.onnx").symlink_to("pipe")


def pipe(model, name):
    (model / name).unlink()
    os.mkfifo(model / name)


def folder(model, name):
    (model / name).unlink()
    (model / name).mkdir()


def listing(model, name):
    files = json.loads((model / "pipeline.json").read_text())["files"]
    rewrite(model, files=files | {name: "0" * 64})


FILES = {
    "the weights are a pipe": (
        lambda m: pipe(m, "weights.safetensors"),
        "model/weights.safetensors: is no plain file; export the model again",
    ),
    "the pipeline is a pipe": (
        lambda m: pipe(m, "pipeline.json"),
        "model/pipeline.json: is no plain file; export the model again",
    ),
    "a link to a pipe": (link_to_a_pipe, "model/model.onnx: is no plain file"),
    "a folder": (lambda m: folder(m, "model.onnx"), "model/model.onnx: is no plain file"),
    "half a character": (lambda m: listing(m, "\ud800"), r"names in the folder, got '\ud800'"),
    "two lines": (lambda m: listing(m, "a\nb"), r"files: must be names in the folder, got 'a\nb'"),
    "no name": (lambda m: listing(m, ""), "files: must be names in the folder, got ''"),
    "too long a name": (lambda m: listing(m, "a" * 300), ": cannot be read: File name too long"),
}


@pytest.mark.timeout(300)  # who opens a pipe waits for good
@pytest.mark.parametrize("name", FILES)
def test_a_nameless_file_is_refused_without_waiting(name, made, refuses):
    change, part = FILES[name]
    change(made("series"))
    refuses(part)


def initializer(graph):
    return max(graph.initializer, key=lambda tensor: len(tensor.raw_data))


def constant(graph):
    """Make the largest initializer a node, and return its value."""
    tensor = initializer(graph)
    node = helper.make_node("Constant", [], [tensor.name], value=tensor)
    graph.initializer.remove(tensor)
    graph.node.insert(0, node)
    return graph.node[0].attribute[0].t


@pytest.mark.parametrize("tensor_of", [initializer, constant])
@pytest.mark.parametrize("place", ["outside.bin", "../here/outside.bin", "absolute", "model/in"])
def test_a_graph_whose_weights_lie_in_another_file_is_refused(place, tensor_of, made, refuses):
    model = made("series")
    graph = onnx.load(model / "model.onnx")
    tensor = tensor_of(graph.graph)
    path = Path("outside.bin").resolve() if place == "absolute" else Path(place)
    path.write_bytes(tensor.raw_data)  # as it was: whoever reads it predicts
    set_external_data(tensor, str(path))
    tensor.ClearField("raw_data")
    replace_file(model, "model.onnx", graph.SerializeToString())
    refuses(
        "model/model.onnx: must hold all its weights, got external data, which is in another "
        "file; export the model again\n"
    )


def test_a_column_called_location_is_no_location_graph(tmp_path):
    frame = RUNS.rename(columns={"word": "location", "run": "id"})
    frame["kind"] = np.where(frame["kind"] == "u", "location", "other")
    frame["location"] = "location " + frame["location"]
    data = {"id": "id", "tokens": "location", "target": "kind"}
    raw = {"name": "location", "data": data, "task": {"kind": "classify"}}
    make_model(raw, tmp_path, frame, "location.csv")
    found = load_model(tmp_path / "model").predict(frame)
    assert list(found) == ["id", "kind", "p_location", "p_other"]


def test_a_graph_of_another_runtime_s_format_is_refused(made, refuses):
    import onnxruntime

    model = made("series")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(Path("model.ort").resolve())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model / "model.onnx", options, ["CPUExecutionProvider"])
    replace_file(model, "model.onnx", Path("model.ort").read_bytes())
    refuses("model/model.onnx: onnxruntime cannot read it: ")


def two_outputs(model):
    graph = onnx.load(model / "model.onnx")
    graph.graph.node.append(helper.make_node("Identity", ["inputs"], ["more"]))
    graph.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    replace_file(model, "model.onnx", graph.SerializeToString())


def other_numbers(model):
    graph = onnx.load(model / "model.onnx")
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.graph.node:
        node.input[:] = ["narrow" if name == "inputs" else name for name in node.input]
    cast = helper.make_node("Cast", ["inputs"], ["narrow"], to=TensorProto.FLOAT)
    graph.graph.node.insert(0, cast)
    replace_file(model, "model.onnx", graph.SerializeToString())


UNLIKE = (
    "model/model.onnx: does not have the inputs and outputs of pipeline.json; export the model "
    "again"
)
GRAPHS = {
    "a second output": ("series", two_outputs, UNLIKE),
    "a class of each step": (
        "classes of numbered tokens",
        lambda m: rewrite(m, task="label"),
        UNLIKE,
    ),
    "inputs of another type": ("series", other_numbers, "model/model.onnx: onnxruntime cannot run"),
    "more tokens than the graph has": (
        "labels of tokens",
        lambda m: rewrite(m, vocabulary=[f"{i}" for i in range(1000)] + ["a", "b", "c"]),
        "model/model.onnx: onnxruntime cannot run it: ",
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_not_that_of_its_pipeline_is_refused(name, made, refuses):
    kind, change, part = GRAPHS[name]
    change(made(kind))
    refuses(part)


def test_too_deeply_nested_input_is_refused(made):
    model = made("series")
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        nested = "[" * depth + "]" * depth
        (model / "pipeline.json").write_text(f'{{"format": {FORMAT}, "season": {nested}}}')
        with pytest.raises(ModelError):
            load_model(model)


@pytest.mark.parametrize("key", ["frequency", "resample"])
def test_an_unknown_frequency_is_blamed_on_the_model(key, made, refuses):
    rewrite(made("resampled"), **{key: "junk"})
    refuses(f"model/pipeline.json: {key}: no model has 'junk' there; export the model again")


def test_texts_have_neither_ids_nor_numbered_tokens(made, refuses):
    model = made("texts")
    rewrite(model, id="kind")
    refuses("model/pipeline.json: text: no model has 'name' there")
    rewrite(model, id=None, vocabulary_size=4, vocabulary=[])
    refuses("model/pipeline.json: vocabulary_size: no model has 4 there")
