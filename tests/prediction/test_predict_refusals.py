"""Bad input of `tuner predict`: one line, exit status 2, and nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import make_model, months, replace_file, rewrite

from tuner.cli.app import run
from tuner.prediction.model import FORMAT, OLDEST

SALES = {
    "data": {"time": "month", "target": "sales", "transform": "log"},
    "task": {"window": 6, "horizon": 2},
}
RUNS = pd.DataFrame(
    [
        {"run": i, "word": "abc"[(i + t) % 3], "code": (i + t) % 4, "x": i + t, "kind": "uv"[i % 2]}
        for i in range(20)
        for t in range(4)
    ]
)


def write(frame, path):
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def sales(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sales")
    make_model(SALES, folder, months(), "train.csv")
    return folder


@pytest.fixture
def made(tmp_path, sales, monkeypatch):
    """Write the model of an experiment on a frame; the current folder has nothing else."""

    def make(raw=None, frame=None):
        if raw is None:
            shutil.copytree(sales, tmp_path, dirs_exist_ok=True)
        else:
            make_model(raw, tmp_path, months() if frame is None else frame, "train.csv")
        monkeypatch.chdir(tmp_path)
        return tmp_path / "model"

    return make


def every(frequency):
    return months().assign(month=pd.date_range("2015-01-01", periods=72, freq=frequency))


def with_value(value, column="sales"):
    frame = months().astype({column: object})
    frame.loc[9, column] = value
    return frame


DATA = [
    (months().rename(columns={"sales": "sale"}), "no column 'sales'", "; did you mean 'sale'?"),
    (months().drop(columns="month"), "no column 'month'"),
    (months(5), "the model needs 6 rows, got 5; pass more rows"),
    (every("D"), "trained on rows at frequency MS, got D; give it rows at frequency MS"),
    (every("h")[:2], "trained on rows at frequency MS, got a first step of 01:00:00"),
    (every("QS"), "trained on rows at frequency MS, got QS-JAN"),  # all of them the model's too
    (months().drop(index=9), "no gaps, got 1 missing", "2015-10-01 before line 11; add the rows\n"),
    (months().iloc[[0, 1, 1, *range(2, 9)]].assign(sales=range(10)), "2015-02-01", "line 4"),
    (with_value("many"), "must hold numbers, got 'many' in line 11; write a number there (1234.5)"),
    (with_value(np.nan), "a finite number", "got nan in line 11 (2015-10-01); fill it in\n"),
    (with_value(np.inf), "got inf", "correct it\n"),
    (
        with_value(0.0),
        "log needs values above 0, got 0.0 in column 'sales', line 11",
        "; correct the d",
    ),
    (with_value("soon", "month"), "got 'soon' in line 11; write 1960"),
]


@pytest.mark.parametrize(("frame", "parts"), [(frame, parts) for frame, *parts in DATA])
def test_data_that_is_not_like_the_training_s_is_refused(frame, parts, made, refuses):
    made()
    write(frame, Path("data.csv"))
    refuses("tuner: data.csv: ", *parts)


@pytest.mark.parametrize(("lagged", "lost"), [("price", 3), ("sales", 4)])
def test_rows_lost_to_lags_and_differences_are_counted(lagged, lost, made, refuses):
    made(SALES | {"data": SALES["data"] | {"transform": "difference", "lags": {lagged: [3]}}})
    write(months(5 + lost), Path("data.csv"))
    text = f"needs {6 + lost} rows (6 to read, {lost} before them for lags or differences), got "
    refuses(text + str(5 + lost))
    write(months(6 + lost), Path("data.csv"))
    assert run(["predict", "model", "data.csv", "-o", "out.csv"]) == 0
    assert len(pd.read_csv("out.csv")) == 2


def test_rows_not_resampled_as_in_training_are_refused(made, refuses):
    days = pd.date_range("2020-01-01", periods=288, freq="D")
    frame = pd.concat([months()] * 4).assign(month=days)
    data = SALES["data"] | {"resample": "2D", "split": {"validation": 20, "test": 10}}
    made(SALES | {"data": data}, frame)
    write(months(), Path("data.csv"))
    refuses("resample: must not be finer than the rows, which are MS apart, got '2D'; correct the")
    write(frame.drop(frame.index[[20, 21]]), Path("data.csv"))
    refuses("resample: no step may lack rows, got", "; add the rows\n")
    write(frame[:11], Path("data.csv"))
    refuses("the model needs 6 rows, got 5 of 2D; pass more rows")
    write(frame[:13], Path("data.csv"))
    assert run(["predict", "model", "data.csv", "-o", "out.csv"]) == 0
    assert pd.read_csv("out.csv")["month"].tolist() == ["2020-01-13", "2020-01-15"]


def test_series_that_are_too_short_are_refused_only_if_all_are(made, refuses, capfd):
    frame = pd.concat([months().assign(store="old"), months(seed=1).assign(store="older")])
    made(SALES | {"data": SALES["data"] | {"id": "store"}}, frame)
    short = [months(n).assign(store=f"new {n}") for n in (3, 4)]
    write(pd.concat(short), Path("data.csv"))
    refuses("the model needs 6 rows, got 4 in the longest series; pass more rows")

    write(pd.concat([*short, months(20).assign(store="another")]), Path("data.csv"))
    assert run(["predict", "model", "data.csv"]) == 0
    out, err = capfd.readouterr()
    assert err == (
        "tuner: note: no forecast for new 3, new 4: the model needs 6 rows in a series\n"
    )
    assert [line.split(",")[:3] for line in out.splitlines()] == [
        ["store", "month", "step"],
        ["another", "2016-09-01", "1"],
        ["another", "2016-10-01", "2"],
    ]


def test_first_rows_without_values_are_not_read(made, refuses):
    made(SALES | {"data": SALES["data"] | {"missing": "ffill"}})
    frame = months(8)
    frame.loc[:3, "price"] = np.nan
    write(frame, Path("data.csv"))
    refuses("needs 6 rows, got 8, of which the first lack values that nothing before can")


def test_unknown_classes_and_numbered_tokens_are_refused(made, refuses):
    data = {"id": "run", "tokens": "code", "vocabulary_size": 4, "target": "kind"}
    made({"data": data, "task": {"kind": "classify"}}, RUNS)
    write(RUNS.assign(code=[7, *RUNS["code"][1:]]), Path("data.csv"))
    refuses("column 'code' must hold numbers from 0 to 3, got '7' in line 2")
    write(RUNS.assign(kind=["u", "new", *RUNS["kind"][2:]]), Path("data.csv"))
    refuses("column 'kind' must hold classes that the model knows, got 'new' in line 3; leave")
    write(RUNS.assign(kind=["", "u", *RUNS["kind"][2:]]), Path("data.csv"))
    assert run(["predict", "model", "data.csv", "-o", "out.csv"]) == 0


def test_unknown_tokens_are_read_as_unknown_with_a_note(made, capsys):
    data = {"id": "run", "tokens": "word", "target": "kind"}
    made({"data": data, "task": {"kind": "classify"}}, RUNS)
    words = RUNS["word"].where(RUNS["run"] > 0, "zebra")
    write(RUNS.assign(word=words).drop(columns="kind"), Path("data.csv"))
    capsys.readouterr()
    assert run(["predict", "model", "data.csv"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 21
    assert err.startswith("tuner: note: 4 of 80 tokens are not in the model's vocabulary")
    assert err.endswith("read as unknown: 'zebra'\n")


def test_a_linear_path_refuses_sequences_of_another_length(made, refuses):
    data = {"id": "run", "features": ["x"], "target": "kind"}
    options = {"hidden_size": 4, "linear_path": True}
    made({"data": data, "task": {"kind": "classify"}, "hyperparameters": options}, RUNS)
    write(RUNS.iloc[1:], Path("data.csv"))
    text = "data.csv: sequences must have 4 steps, as the model has a linear path, got 3 in '0'"
    refuses(f"{text}; leave them out\n")
    write(RUNS.iloc[1:-1], Path("data.csv"))
    refuses(f"{text} and 1 more of other lengths; leave them out\n")
    write(RUNS.iloc[:40], Path("data.csv"))
    assert run(["predict", "model", "data.csv", "-o", "out.csv"]) == 0


def test_missing_values_of_sequences_are_refused(made, refuses):
    data = {"id": "run", "features": ["x"], "target": "kind"}
    made({"data": data, "task": {"kind": "label"}}, RUNS)
    write(RUNS.assign(x=[1.0, np.nan, *RUNS["x"][2:]]), Path("data.csv"))
    refuses("column 'x' must hold a number in every row, got none in line 3", "; fill it in\n")
    write(RUNS.drop(columns="run"), Path("data.csv"))
    refuses("no column 'run' in the file")


FILES = [
    ("model none.csv", "none.csv: no such file; check the path"),
    ("none train.csv", "none: no such folder; give the folder that"),
    ("train.csv train.csv", "train.csv: is a file; give the folder"),
    ("arrays train.csv", "arrays/pipeline.json: is missing"),
    ("model train.csv -o arrays", "-o: arrays is a folder"),
    ("model train.csv -o no/out.csv", "existing folder"),
    ("model train.csv -o train.csv", "is the data that is read"),
    ("model train.csv -o model/weights.safetensors --force", "lies in the model's folder"),
    ("model train.csv -o out.parquet", "-o: must end in .csv or .csv.gz, got out.parquet; rename"),
    ("model train.csv -o notes.csv", "notes.csv exists and is no prediction of this model; write"),
]


@pytest.mark.parametrize(("command", "part"), FILES)
def test_files_that_cannot_be_read_or_written_are_refused(command, part, made, refuses):
    made()
    Path("notes.csv").write_text("mine\n")
    refuses(part, command=command.split())
    assert Path("notes.csv").read_text() == "mine\n"


def test_a_full_disk_is_said_in_one_line(made, capsys):
    made()
    capsys.readouterr()
    assert run(["predict", "model", "train.csv", "-o", "/dev/full"]) == 1
    assert capsys.readouterr().err == (
        "tuner: /dev/full: cannot be written: No space left on device; make room, or write "
        "elsewhere\n"
    )


def test_an_earlier_prediction_is_overwritten(made):
    made()
    for options in (["--all"], []):
        assert run(["predict", "model", "train.csv", "-o", "out.csv", *options]) == 0
    assert len(pd.read_csv("out.csv")) == 2


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def leads_out(model, name):
    outside = model.parent / f"outside {name}"
    (model / name).rename(outside)
    (model / name).symlink_to(outside)


def listed(model, name):
    files = json.loads((model / "pipeline.json").read_text())["files"]
    return files | {name: "0" * 64}


CHANGED = [
    (lambda m: flip_a_bit(m / "model.onnx"),
     "model/model.onnx: is not as it was written (its checksum differs)"),
    (lambda m: flip_a_bit(m / "weights.safetensors"),
     "model/weights.safetensors: is not as it was written"),
    (lambda m: rewrite(m, sign=False, window=5), "model/pipeline.json: is not as it was written"),
    (lambda m: (m / "pipeline.json").write_text("{"), "model/pipeline.json: is not JSON"),
    (lambda m: (m / "pipeline.json").write_bytes(b"\xff\xfe\xfa"), "pipeline.json: is not JSON"),
    (lambda m: (m / "pipeline.json").write_text("[" * 100_000), "pipeline.json: is not JSON"),
    (lambda m: (m / "pipeline.json").write_text("[1]"), "must be an object, got a list"),
    (lambda m: (m / "model.onnx").unlink(),
     "model/model.onnx: is missing; export the model again"),
    (lambda m: leads_out(m, "model.onnx"), "model/model.onnx: leads out of the folder"),
    (lambda m: leads_out(m, "pipeline.json"), "model/pipeline.json: leads out of the folder"),
    (lambda m: rewrite(m, files=listed(m, "../train.csv")),
     "files: must be names in the folder, got '../train.csv'"),
    (lambda m: rewrite(m, files=listed(m, "/etc/passwd")), "got '/etc/passwd'"),
    (lambda m: rewrite(m, files=listed(m, ".")), "got '.'"),
    (lambda m: rewrite(m, files=listed(m, "a\0")), "names in the"),
]  # fmt: skip
REWRITTEN = [
    ({"format": FORMAT + 1}, f"reads up to {FORMAT}, got {FORMAT + 1}; install a newer"),
    ({"format": 2}, f"reads from {OLDEST} on, got 2; export the model again"),
    ({"format": "REMOVED"}, "format: must be a whole number"),
    ({"files": {}}, "files: must list model.onnx"),
    ({"horizon": "REMOVED"}, "json: horizon: the key is missing; export the model again"),
    ({"task": "guess"}, "task: no model has 'guess' there"),
    ({"window": 0}, "window: no model has 0 there"),
    ({"outputs": {"offset": [0.0], "scale": [0]}}, "outputs: no model has"),
    ({"inputs": {"offset": [0.0] * 9, "scale": [1.0] * 9}}, "inputs: no model has"),
    ({"quantiles": [0.1, 0.9]}, "quantiles: no model has [0.1, 0.9] there"),
    ({"features": ["sales"], "inputs": {"offset": [0.0], "scale": [1.0]}},
     "model/model.onnx: does not have the inputs and outputs of pipeline.json"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "part"), CHANGED, ids=[part for _, part in CHANGED])
def test_a_model_folder_that_is_not_as_it_was_written_is_refused(change, part, made, refuses):
    change(made())
    refuses(part, command=("model", "train.csv"))


@pytest.mark.parametrize(("values", "part"), REWRITTEN, ids=[part for _, part in REWRITTEN])
def test_a_pipeline_that_no_model_has_is_refused(values, part, made, refuses):
    rewrite(made(), **values)
    refuses(part, command=("model", "train.csv"))


def test_a_model_that_is_no_onnx_is_refused(made, refuses):
    replace_file(made(), "model.onnx", b"nonsense")
    refuses("model/model.onnx: onnxruntime cannot read it", command=("model", "train.csv"))


def test_a_readme_may_be_edited_and_the_folder_a_link(made):
    model = made()
    with (model / "README.md").open("a") as file:
        file.write("In use since May.\n")
    Path("link").symlink_to(model)
    assert run(["predict", "link", "train.csv", "-o", "out.csv"]) == 0
