"""The data of searches, read in processes: the same bit for bit, with limits, stoppable."""

import dataclasses
import datetime as dt
import json
import os
import select
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import make_model, months

from tuner.data.prepared import DataSource, check_data
from tuner.errors import DataError, Interrupted
from tuner.experiment import Experiment
from tuner.prediction import load_model
from tuner.service import confined, confined_data, preparing
from tuner.service.confined_data import ConfinedData
from tuner.winner import example_of

SOON_S = 60
rng = np.random.default_rng(0)


def several(n=90):
    """Three series with a category, by the day."""
    frames = [
        pd.DataFrame(
            {
                "day": pd.date_range("2024-01-01", periods=n),
                "shop": shop,
                "y": 50 + 10 * np.sin(np.arange(n) / 3) + rng.normal(size=n),
                "x": rng.uniform(1, 2, n),
            }
        )
        for shop in ("a", "b", "c")
    ]
    return pd.concat(frames)


def at(times, several=False, **columns):
    """A series at these times, or two with numbers for names, which begin together."""
    values = np.sin(np.arange(len(times)) / 3) + rng.normal(size=len(times)) / 9
    frame = pd.DataFrame({"at": times, "y": values, **columns})
    if not several:
        return frame
    return pd.concat([frame.assign(of=number) for number in (7, 12)])


def timed(**data):
    """The experiment of a series at times."""
    return {"data": {"time": "at", "target": "y"} | data, "task": {"window": 6}}


def from_1960(freq, tz=None, unit="us"):
    return pd.date_range("1960-03-20", periods=90, freq=freq, tz=tz, unit=unit)


IN_AUTUMN = pd.date_range("2024-10-26", periods=90, freq="h", tz="Europe/Berlin")


def sentences(n=40):
    texts = ["ab" * (1 + i % 5) for i in range(n)]
    return pd.DataFrame({"text": texts, "said": [text.upper() for text in texts], "y": "pq" * 20})


SEARCHED = {
    "transform": {"type": "categorical", "choices": ["none", "log", "difference"]},
    "lags": {"type": "categorical", "choices": [{}, {"y": [7]}]},
}
SMALL = {"validation": 8, "test": 8}
CASES = {
    "rows": (months(), {"data": {"target": "sales", "features": ["sales", "price"]}}),
    "series": (
        several(),
        {
            "data": {"time": "day", "id": "shop", "target": "y", "features": ["y", "x"],
                     "scale_by": "series", "categories": ["shop"]},
            "task": {"window": 7, "horizon": 3, "intervals": [0.5]},
        },
    ),
    "folds and preparations": (
        several().query("shop == 'a'"),
        {
            "data": {"time": "day", "target": "y", "features": ["y", "x"],
                     "split": {"validation": {"folds": 2, "size": 10}, "test": 10}},
            "task": {"window": 6},
            "search_space": SEARCHED,
        },
    ),
    "times in UTC": (at(from_1960("h", "UTC")), timed()),
    "times with an offset": (at(from_1960("15min", "Etc/GMT+3", "ns")), timed()),
    "texts with an offset": (at(from_1960("h").strftime("%Y-%m-%d %H:%M+05:30")), timed()),
    "texts with offsets that differ": (
        at(pd.Series(IN_AUTUMN).map(pd.Timestamp.isoformat)),
        timed(read={"timezone": "Europe/Berlin"}),
    ),
    "times of a zone that is named": (
        at(IN_AUTUMN.tz_localize(None), several=True),
        timed(id="of", read={"timezone": "Europe/Berlin"}),
    ),
    "days before 1970": (at(from_1960("D").date), timed()),
    "texts of months": (at(from_1960("MS").strftime("%b-%y")), timed()),
    "years as numbers": (at(np.arange(1850, 1940)), timed()),
    "seconds that have parts": (at(from_1960("100ms", unit="ms"), several=True), timed(id="of")),
    "numbers for classes": (
        at(from_1960("h", "UTC"), c=np.tile([0, 1, 1], 30)),
        timed(target="c", features=["y"]) | {"task": {"kind": "classify", "window": 6}},
    ),
    "sequences of days": (
        pd.DataFrame(
            {"day": from_1960("D").date.repeat(4), "y": rng.normal(size=360),
             "c": np.tile([1, 0], 45).repeat(4)}
        ),
        {"data": {"id": "day", "features": ["y"], "target": "c", "split": SMALL},
         "task": {"kind": "classify"}},
    ),
    "classes of texts": (
        sentences().assign(y=["p", "q"] * 20),
        {"data": {"text": "text", "target": "y", "split": SMALL}, "task": {"kind": "classify"}},
    ),
    "pairs": (
        sentences(),
        {"data": {"text": "text", "target": "said", "split": SMALL}, "task": {"kind": "translate"}},
    ),
}  # fmt: skip


@pytest.fixture
def make(tmp_path, shared):
    """Returns an experiment on a file, and what reads its data in processes."""
    shared._root = tmp_path

    def made(frame, raw, stop=None):
        path = tmp_path / "data.parquet"
        frame.to_parquet(path, index=False)
        raw = {"name": "made"} | raw | {"data": {"path": str(path), **raw["data"]}}
        return Experiment.from_dict(raw), ConfinedData(shared, "ana", stop or threading.Event())

    return made


def content(prepared):
    """Everything that is known of prepared data, and its arrays as bytes."""
    found = [prepared.facts, json.loads(json.dumps(prepared.pipeline))]
    for ref in prepared.folds:
        arrays = {file.stem: np.load(file) for file in sorted(Path(ref.folder).glob("*.npy"))}
        found.append(dataclasses.replace(ref, folder=""))
        found.append({n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()})
    found.append([prepared.name_of(sample) for sample in ref.evaluate_samples().tolist()])
    return found


@pytest.mark.parametrize("case", CASES)
def test_what_a_process_prepares_is_the_same(case, make, tmp_path):
    experiment, confined = make(*CASES[case])
    here = DataSource()
    expected = here.prepare(experiment, tmp_path / "here")
    found = confined.prepare(experiment, tmp_path / "there")
    assert content(found) == content(expected)
    params = {"transform": "log"} if "transform" in experiment.search_space else {}
    assert content(found.of(params)) == content(expected.of(params))
    assert found.of(params) is found.of(params)
    sha256 = expected.facts.sha256
    for all_data in (False, True):
        folder = tmp_path / str(all_data)
        assert content(
            confined.test_part(experiment, folder / "a", sha256=sha256, all_data=all_data)
        ) == content(here.test_part(experiment, folder / "b", sha256=sha256, all_data=all_data))
    both = confined.prepare(experiment, tmp_path / "both", all_data=True)
    assert content(both) == content(here.prepare(experiment, tmp_path / "all", all_data=True))


def test_baselines_of_all_preparations_are_read_at_once(make, tmp_path, monkeypatch):
    experiment, confined = make(*CASES["folds and preparations"])
    tasks, run = [], ConfinedData._run

    def counted(self, task, *given):
        tasks.append(task)
        return run(self, task, *given)

    monkeypatch.setattr(ConfinedData, "_run", counted)
    found = confined.baselines(experiment, confined.prepare(experiment, tmp_path / "there"))
    here = DataSource()
    assert found == here.baselines(experiment, here.prepare(experiment, tmp_path / "here"))
    assert tasks == ["prepare", "prepare", "baselines"]


def test_the_example_of_a_model_is_the_same(make, tmp_path, monkeypatch):
    make_model({"data": {"time": "month", "target": "sales"}}, tmp_path, months())
    model = load_model(tmp_path / "model")
    experiment, confined = make(months(), {"data": {"time": "month", "target": "sales"}})
    sha256 = check_data(experiment).facts.sha256
    record = type("Record", (), {"experiment": experiment, "data": {"sha256": sha256}})
    found = confined.example(model, record)
    pd.testing.assert_frame_equal(found, example_of(model, experiment.data, sha256))
    record.data["sha256"] = "0"
    with pytest.raises(DataError, match="has changed since the search"):
        confined.example(model, record)


def test_an_example_has_the_types_of_the_file(make, tmp_path):
    days = pd.date_range("2020-01-01", periods=48)
    frame = pd.DataFrame(
        {
            "day": days.date,
            "sales": [Decimal(i * i) / 8 for i in range(48)],
            "price": pd.array([i % 5 for i in range(48)], "Int64"),
            "kind": pd.Categorical(["a", "b"] * 24),
        }
    )
    columns = {"features": ["sales", "price", "kind"], "categories": ["kind"]}
    raw = {"data": {"time": "day", "target": "sales"} | columns}
    make_model(raw, tmp_path, frame, "made.parquet")
    model = load_model(tmp_path / "model")
    experiment, confined = make(frame, raw)
    sha256 = check_data(experiment).facts.sha256
    record = type("Record", (), {"experiment": experiment, "data": {"sha256": sha256}})
    found = confined.example(model, record)
    pd.testing.assert_frame_equal(found, example_of(model, experiment.data, sha256))
    assert isinstance(found["sales"][0], Decimal)
    assert isinstance(found["day"][0], dt.date)


def test_tables_of_every_kind_are_handed_over(tmp_path, monkeypatch):
    kinds = {
        "day": [dt.date(2020, 1, 1), None],
        "decimal": [Decimal("0.10"), Decimal(7)],
        "time": [dt.time(8, 15), dt.time()],
        "whole": pd.array([1, None], "Int64"),
        "boolean": pd.array([True, None], "boolean"),
        "kind": pd.Categorical(["a", None]),
        "zoned": IN_AUTUMN[:2].as_unit("ns"),
        "seconds": from_1960("h", unit="s")[:2],
        "long": pd.to_timedelta([1, 2], unit="h"),
        "period": pd.period_range("2020-01", periods=2, freq="M"),
        "float": np.array([np.inf, np.nan], "float32"),
        "text": ["a", None],
        "bytes": [b"\x00\xff", b""],
        "list": [[1, 2], []],
        "unsigned": np.array([2**63, 0], "uint64"),
    }
    frame = pd.DataFrame(kinds)
    monkeypatch.setattr(preparing, "example_of", lambda *given: frame)
    monkeypatch.setattr(preparing, "load_model", lambda folder: None)
    monkeypatch.chdir(tmp_path)
    raw = {"name": "e", "data": {"path": str(tmp_path / "x.csv"), "target": "float"}}
    given = {"experiment": raw, "model": "", "sha256": ""}
    answer = preparing.example(given)
    pd.testing.assert_frame_equal(preparing.table_of(json.loads(json.dumps(answer))), frame)
    many = ["a", *map(str, range(1 << 16))]
    frame["kind"] = frame["kind"].cat.set_categories(many)
    assert preparing.example(given) == answer  # without the names of other rows


def test_a_reply_that_is_no_json_is_a_failure(monkeypatch):
    allowed = confined.Allowed(1, None)
    monkeypatch.setattr(preparing, "baselines", lambda given: {"found": {1, 2}})
    answer = json.loads(confined._done(confined.OF_SEARCHES, "baselines", {}, allowed))
    assert answer["failed"] == "TypeError: Object of type set is not JSON serializable"


def test_refused_data_is_refused_in_the_same_words(make, tmp_path):
    experiment, confined = make(months(), {"data": {"target": "sale"}})
    with pytest.raises(DataError) as refused:
        confined.prepare(experiment, tmp_path / "there")
    with pytest.raises(DataError) as expected:
        DataSource().prepare(experiment, tmp_path / "here")
    assert str(refused.value).replace("data.parquet: ", "") in str(expected.value)
    assert str(tmp_path) not in str(refused.value)


def test_too_much_memory_is_refused(make, tmp_path, monkeypatch):
    monkeypatch.setattr(confined_data, "most_memory", lambda: 8 << 20)
    frame = pd.DataFrame({"sales": rng.normal(size=1 << 20), "price": 1.0})
    experiment, confined = make(frame, CASES["rows"][1])
    with pytest.raises(DataError, match=r"8 MiB of memory|bytes failed"):
        confined.prepare(experiment, tmp_path / "there")


def test_a_process_that_hangs_is_killed(make, tmp_path):
    """It waits for a pipe that nobody writes to; the pipe breaks with its end."""
    stop = threading.Event()
    experiment, confined = make(months(), CASES["rows"][1], stop)
    pipe = Path(experiment.data.path)
    pipe.unlink()
    os.mkfifo(pipe)
    raised = []

    def prepare():
        with pytest.raises(Interrupted):
            confined.prepare(experiment, tmp_path / "there")
        raised.append(True)

    thread = threading.Thread(target=prepare)
    thread.start()
    with pipe.open("wb", buffering=0) as writer:  # once it reads
        stop.set()
        thread.join(SOON_S)
        assert raised
        with pytest.raises(BrokenPipeError):
            writer.writelines([bytes(4096)] * 1000)


SERVICE = """
import json, sys, threading
from pathlib import Path
from tuner.experiment import Experiment
from tuner.service.confined import Confined
from tuner.service.confined_data import ConfinedData

experiment = Experiment.from_dict(json.loads(sys.argv[1]))
data = ConfinedData(Confined(Path(sys.argv[2])), "ana", threading.Event())
data.prepare(experiment, Path(sys.argv[2]) / "there")
"""


@pytest.mark.real_processes
def test_a_task_ends_with_a_service_that_is_killed(make, tmp_path):
    experiment, _ = make(months(), CASES["rows"][1])
    pipe = Path(experiment.data.path)
    pipe.unlink()
    os.mkfifo(pipe)
    given = [json.dumps(experiment.to_dict()), str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", SERVICE, *given]) as service:
        try:
            with pipe.open("wb", buffering=0) as writer:  # once the task reads
                service.kill()
                service.wait()
                no_reader = select.poll()
                no_reader.register(writer, 0)
                [(_, event)] = no_reader.poll(SOON_S * 1000)
                assert event & select.POLLERR
        finally:
            service.kill()


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="needs Linux")
def test_the_kernel_kills_tasks_before_the_service():
    code = """
from pathlib import Path
from tuner.service.confined import Allowed, _limit
_limit(Allowed(60, None))
print(Path("/proc/self/oom_score_adj").read_text())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(found.stdout) == 1000


def test_a_search_that_waits_for_its_turn_is_stopped(make, tmp_path, shared):
    stop = threading.Event()
    experiment, confined = make(months(), CASES["rows"][1], stop)
    stop.set()
    turns = shared._searches
    n_free, turns.n_free = turns.n_free, 0
    try:
        with pytest.raises(Interrupted):
            confined.prepare(experiment, tmp_path / "there")
    finally:
        turns.n_free = n_free
    assert not turns.waiting.total()
