"""Graphs that are run by numpy alone."""

import contextlib
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.model_folders import months, replace_file
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tuner.errors import ModelError
from tuner.prediction import load_model
from tuner.prediction.numpy_session import NumpySession


def layer(kind, gates, **options):
    rng = np.random.default_rng(3)
    ways, units, inputs = options.pop("ways", 1), 5, 3

    def some(*shape):
        return rng.normal(size=shape).astype(np.float32)

    weights = {
        "w": some(ways, gates * units, inputs), "r": some(ways, gates * units, units),
        "b": some(ways, 2 * gates * units), "n": np.array([4, 1, 6], np.int32),
        "h": some(ways, 3, units),
    }  # fmt: skip
    if kind == "LSTM":
        weights |= {"c": some(ways, 3, units), "p": some(ways, 3 * units)}
    outputs = ["y", "y_h", "y_c"][: 3 if kind == "LSTM" else 2]
    direction = "bidirectional" if ways == 2 else "forward"
    node = helper.make_node(
        kind, ["x", *weights], outputs, hidden_size=units, direction=direction, **options
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 3, inputs])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8), {"x": some(6, 3, inputs)}


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize(
    ("kind", "gates", "options"),
    [
        ("LSTM", 4, {}),
        ("GRU", 3, {"linear_before_reset": 1}),
        ("GRU", 3, {"linear_before_reset": 0}),
        ("RNN", 1, {}),
        ("RNN", 1, {"activations": ["Relu"]}),
    ],
)
def test_onnx_layers_follow_the_standard(kind, gates, options, ways):
    options = {n: v * ways if n == "activations" else v for n, v in options.items()}
    model, feed = layer(kind, gates, ways=ways, **options)
    file = model.SerializeToString()
    expected = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
        None, feed
    )
    for found, other in zip(NumpySession(file).run(None, feed), expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-5)


@pytest.fixture
def model(kind, tmp_path):
    """A model whose decoder is a loop."""
    _, folder = kind("log, recursive")
    return shutil.copytree(folder / "model", tmp_path / "model")


def test_a_model_that_numpy_cannot_run_says_so_in_a_line(model):
    graph = onnx.load(model / "model.onnx")
    graph.graph.node[0].op_type = "Erf"
    whole = (model / "model.onnx").read_bytes()
    for content, problem in (
        (graph.SerializeToString(), "has the operator Erf, which --numpy does not know"),
        (b"no model", "numpy cannot run it: "),
        (whole[: len(whole) // 2], "numpy cannot run it: is cut off"),
        (b"", "holds no graph"),
    ):
        replace_file(model, "model.onnx", content)
        with pytest.raises(ModelError, match=re.escape(problem)):
            load_model(model, numpy=True)


def nested(depth):
    """Return loops in loops."""
    inner = helper.make_graph([], "none", [], [])
    for _ in range(depth):
        loop = helper.make_node("Loop", ["n", ""], ["y"], body=inner)
        inner = helper.make_graph([loop], "outer", [], [])
    return helper.make_model(inner)


def varint(number):
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + varint(number >> 7)


def field(number, kind, content):
    """Return a field of a message: its number, its kind, and what it holds."""
    size = varint(len(content)) if kind == 2 else b""
    return bytes([number << 3 | kind]) + size + content


def within(depth):
    """Return a graph in an attribute of a node of a graph, and so on."""
    found = b""
    for _ in range(depth):
        found = field(1, 2, field(5, 2, field(6, 2, found)))
    return found


def of_graph(*fields):
    return field(7, 2, b"".join(fields))


HUGE = varint(2**40)
NO_BODY = helper.make_model(
    helper.make_graph([helper.make_node("Loop", ["n", ""], ["y"])], "none", [], [])
)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (NO_BODY.SerializeToString(), "has a Loop without a body"),
        (nested(2).SerializeToString(), "has the operator Loop in a Loop, which --numpy does not"),
        (of_graph(within(2000)), "its graphs are nested too deeply"),
        (of_graph(field(1, 2, field(1, 0, HUGE))), "has the number 1099511627776 where bytes be"),
        (of_graph(field(5, 2, field(9, 0, HUGE))), "has the number 1099511627776 where bytes be"),
        (of_graph(field(5, 2, field(1, 0, b"\xff" * 40 + b"\x01"))), "more than 64 bits"),
    ],
)
def test_a_file_that_somebody_made_up_is_refused_by_its_reader(file, problem):
    with pytest.raises(ValueError, match=problem):
        NumpySession(file)


@given(st.data())
def test_a_model_with_changed_bytes_is_read_or_refused(data):
    model, _ = layer("LSTM", 4)
    file = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(file), 120) - 1))
        file[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        NumpySession(bytes(file))


def test_a_loop_that_would_not_end_is_refused_and_numpy_is_named(model):
    graph = onnx.load(model / "model.onnx")
    (loop,) = [node for node in graph.graph.node if node.op_type == "Loop"]
    (count,) = [each for each in graph.graph.initializer if each.name == loop.input[0]]
    count.CopyFrom(onnx.numpy_helper.from_array(np.array(2**62), count.name))
    replace_file(model, "model.onnx", graph.SerializeToString())
    text = "numpy cannot run it: a Loop takes 4611686018427387904 steps, and at most 10000"
    with pytest.raises(ModelError, match=text):
        load_model(model, numpy=True).predict(months())


def test_numpy_predicts_where_there_is_no_onnxruntime(model):
    months().to_csv(path := model.parent / "sales.csv", index=False)
    code = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "from tuner.cli.app import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "predict", str(model), str(path)]
    without = subprocess.run(command, capture_output=True, text=True, check=False)
    assert without.returncode == 2
    assert "needs onnxruntime, which is not installed here; install it, or" in without.stderr
    found = subprocess.run([*command, "--numpy"], capture_output=True, text=True, check=True)
    assert found.stdout.count("\n") > 1
