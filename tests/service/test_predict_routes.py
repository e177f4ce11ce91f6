"""Predictions over HTTP, from rows in JSON and CSV: what a request may take, and what it gives."""

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import make_model, months
from starlette.testclient import TestClient

from tuner.client import RemoteStudy
from tuner.client.frames import frame_of as frame_of_answer
from tuner.prediction import load_model
from tuner.service import reading
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.datasets import DatasetStore
from tuner.service.results import Results
from tuner.service.studies import Kind

URL = "/v1/studies/sales/predict"
AS_CSV = {"Content-Type": "text/csv"}
SALES = months().assign(remark="none")
RAW = {
    "data": {
        "time": "month",
        "target": "sales",
        "features": ["sales", "price"],
        "missing": "ffill",
    },
    "task": {"window": 6, "horizon": 3},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model that forecasts three months."""
    folder = tmp_path_factory.mktemp("made")
    make_model(RAW, folder, SALES)
    return folder / "model"


@pytest.fixture
def client(settings, shared, made):
    """A client of a service with one study, which has this model."""
    store = DatasetStore(settings.root, settings.limits)
    store.confined = shared
    shared._root = settings.root
    owner = Access().owner(None)
    with store.upload(owner, "sales.csv") as upload:
        upload.write(SALES.to_csv(index=False).encode())
        dataset = upload.commit()[0].id
    spec = {"experiment": {"data": {"path": f"dataset:{dataset}"}}}
    study = SimpleNamespace(name="sales", owner="local", kind=Kind.SEARCH, spec=spec)
    study.state = SimpleNamespace(has_ended=True)
    studies = SimpleNamespace(get=lambda owner, name: study)
    models = settings.root / "models"
    shutil.copytree(made, models / "local" / "sales")
    results = Results(studies, None, None, None, store, models)
    service = SimpleNamespace(studies=studies, results=results, datasets=store)
    return TestClient(make_app(service, Access(), settings), base_url="http://127.0.0.1:8080")


@pytest.fixture
def expected(made):
    return load_model(made).predict(SALES)


def rows(frame=SALES):
    return frame.assign(month=frame["month"].astype(str)).to_dict("records")


def frame_of(answer):
    assert answer.status_code == 200, answer.text
    return pd.DataFrame(answer.json()["rows"]).astype({"month": "datetime64[ns]"})


def test_rows_give_what_the_model_predicts(client, expected):
    found = frame_of(client.post(URL, json={"rows": rows()}))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)


def test_rows_may_have_other_columns_where_asked(client, expected):
    given = rows(SALES.assign(mood="fine"))
    refused = client.post(URL, json={"rows": given})
    assert "mood: the data has no such column" in refused.json()["detail"]
    answer = client.post(URL, json={"rows": given, "other_columns": True})
    found = frame_of(answer)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)
    assert answer.json()["dtypes"] == {name: str(expected[name].dtype) for name in expected}


TIMES = pd.date_range("2024-01-01", periods=3)
FRAMES = [
    pd.DataFrame({"day": TIMES, "y": [1.0, np.nan, 2.0], "name": ["a", "b", None]}),
    pd.DataFrame({"day": TIMES.tz_localize("UTC"), "n": [1, 2, 3]}),
    pd.DataFrame({"hour": TIMES.as_unit("s"), "y": np.float32([0.1, 0.2, 0.3])}),
    pd.DataFrame({"day": TIMES, "y": [1.0, 2.0, 3.0]})[:0],
    pd.DataFrame({"time": pd.date_range("2024-01-01", periods=3, freq="500ms")}),
    pd.DataFrame({"day": pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin")}),
    pd.DataFrame({"day": pd.date_range("2024-03-30", periods=3, tz="UTC-03:30", unit="ns")}),
    pd.DataFrame({"day": pd.DatetimeIndex([None, None]).tz_localize("Europe/Berlin")}),
    pd.DataFrame({"y": [np.nan] * 3}),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_an_answer_is_the_frame_that_was_predicted(frame):
    sent = json.loads(json.dumps([reading._plain(frame[name]) for name in frame]))
    items = [dict(zip(frame.columns, row, strict=True)) for row in zip(*sent, strict=True)]
    found = frame_of_answer(items, {name: str(frame[name].dtype) for name in frame})
    pd.testing.assert_frame_equal(found, frame, check_exact=True)


class PostsTo:
    """The connection of a `RemoteStudy` to the service of a test client."""

    def __init__(self, client):
        self._client = client

    def json(self, method, path, body):
        answer = self._client.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def timed(start, n, freq, tz=None, unit="us"):
    times = pd.date_range(start, periods=n, freq=freq, tz=tz, unit=unit)
    return pd.DataFrame({"time": times, "y": 2 + np.sin(np.arange(n))})


TIMED = {
    "days before the change": timed("2019-11-01", 149, "D", "Europe/Berlin"),
    "days over the change": timed("2019-11-01", 160, "D", "Europe/Berlin"),
    "hours over the change": timed("2020-10-23", 120, "h", "Europe/Berlin"),
    "half seconds": timed("2020-01-01", 121, "500ms"),
    "nanoseconds": timed("2020-01-01", 120, "D", unit="ns"),
    "nanoseconds in a zone": timed("2019-12-02", 120, "D", "Europe/Berlin", unit="ns"),
    "seconds": timed("2020-01-01", 120, "D", unit="s"),
    "UTC": timed("2020-01-01", 120, "h", "UTC"),
    "a fixed offset": timed("2020-01-01", 120, "h", "UTC+05:30"),
    "an index without a name": timed("2019-12-02", 120, "D", "Europe/Berlin").set_index("time"),
}
TIMED["an index without a name"].index.name = None


@pytest.mark.parametrize("case", TIMED)
def test_a_client_gets_what_the_model_gives(client, settings, tmp_path, case):
    frame = TIMED[case]
    table = frame if "time" in frame else frame.rename_axis("time").reset_index()
    data = {"time": "time", "target": "y", "features": ["y"]}
    raw = {"data": data, "task": {"window": 6, "horizon": 3}}
    make_model(raw, tmp_path, table[:80])  # in CSV, so before clocks change
    folder = settings.root / "models" / "local" / "sales"
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "model", folder)
    study, model = RemoteStudy(PostsTo(client), "sales", {}), load_model(folder)
    for all_windows in (False, True):
        found = study.predict(frame, all_windows)
        expected = model.predict(frame, all_windows=all_windows)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_csv_gives_what_rows_give(client, expected):
    content = SALES.to_csv(index=False)
    found = frame_of(client.post(URL, content=content, headers=AS_CSV))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)
    german = {"Content-Type": "text/csv; charset=utf-8"}
    other = SALES.to_csv(index=False, sep=";", decimal=",")
    pd.testing.assert_frame_equal(
        frame_of(client.post(URL, content=other, headers=german)), found, check_exact=True
    )


def test_all_windows_are_asked_for_in_body_or_query(client, made):
    every = load_model(made).predict(SALES, all_windows=True)
    for answer in (
        client.post(URL, json={"rows": rows(), "all": True}),
        client.post(f"{URL}?all=true", content=SALES.to_csv(index=False), headers=AS_CSV),
    ):
        assert len(frame_of(answer)) == len(every)


def test_without_rows_it_begins_after_the_data(client, expected):
    found = frame_of(client.post(URL, json={}))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv, */*;q=0.1", True),
        ("application/json, text/csv", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_answer_is_what_the_client_accepts(client, expected, accept, is_csv):
    answer = client.post(URL, json={"rows": rows()}, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("text/csv") == is_csv
    if is_csv:
        found = pd.read_csv(io.StringIO(answer.text), parse_dates=["month"])
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)


def test_notes_of_the_prediction_come_with_it(client):
    frame = SALES.assign(sales=SALES["sales"].mask(SALES.index == len(SALES) - 1))
    content = frame.to_csv(index=False)
    answer = client.post(URL, content=content, headers=AS_CSV)
    assert "has no target" in answer.json()["notes"][0]
    answer = client.post(URL, content=content, headers=AS_CSV | {"Accept": "text/csv"})
    assert "has no target" in answer.headers["tuner-notes"]


REFUSED = [
    ({"json": {"rows": []}}, 422, "rows"),
    ({"json": {"rows": [{"y": 1}], "al": True}}, 422, "al: unknown key"),
    ({"json": {"rows": [{"sale": 1.0}]}}, 422, "sale: the data has no such column; did you mean "),
    ({"json": {"rows": [{"sales": 1.0}]}}, 422, "month"),
    ({"json": {"rows": rows()[:1]}}, 422, "rows: the model needs 6 rows, got 1"),
    ({"json": {"rows": [{f"k{i}": 1} for i in range(9000)]}}, 422, "k0: the data has no such"),
    *(
        ({"json": {"rows": rows(), "dtypes": dtypes}}, 422, says)
        for dtypes, says in [
            ({"month": 1}, "dtypes.month"),
            ({"month": "float64"}, "dtypes.month: must be a type of times, got 'float64'"),
            ({"month": "datetime64[us, dateutil//etc/passwd]"}, "must be a type of times"),
            ({"month": "datetime64[us, ../../etc/passwd]"}, "must be a type of times"),
            ({"month": "datetime64[us, UTC+99:00]"}, "must be a type of times"),
            ({"month": "datetime64[us, UTC]"}, "in ISO 8601 with an offset from UTC, got '"),
            ({"price": "datetime64[us]"}, "dtypes.price: datetime64[us] needs times in ISO"),
            ({"mont": "datetime64[us]"}, "dtypes.mont: no row has this column; did you mean"),
        ]
    ),
    *(
        (
            {"json": {"rows": [{"month": v}], "dtypes": {"month": "datetime64[ns]"}}},
            422,
            "dtypes.month: datetime64[ns] needs times in ISO 8601 without an offset from UTC, got",
        )
        for v in ["now", 5, True, [1], {}, "2020-13-01", "0001-01-01", "2020-01-01T00:00:00Z"]
    ),
    ({"content": "month,sale\n2020-01-01,1\n", "headers": AS_CSV}, 422, "sales"),
    ({"content": "", "headers": AS_CSV}, 422, "empty"),
    ({"content": b"\xff\x00\n", "headers": AS_CSV}, 422, "rows.csv"),
    ({"content": ",".join("abc" * 900), "headers": AS_CSV}, 422, "at most 2,000 columns"),
    ({"content": "x" * 300_000, "headers": AS_CSV}, 413, "the limit"),
    ({"content": "<a/>", "headers": {"Content-Type": "text/xml"}}, 415, "Content-Type"),
    ({"content": "a\n1\n"}, 415, "text/csv"),
]


@pytest.mark.parametrize(("request_", "status", "says"), REFUSED)
def test_other_bodies_are_refused_in_a_line(client, settings, request_, status, says):
    answer = client.post(URL, **request_)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert says in detail
    assert "\n" not in detail
    assert str(settings.root) not in detail
    assert len(detail) < 400


def test_cells_are_counted_before_they_are_made(made, monkeypatch):
    """Two rows with one name each are four cells."""
    monkeypatch.setattr(reading, "_MOST_CELLS", 3)
    monkeypatch.setattr(pd, "DataFrame", None)
    given = {"model": str(made), "path": None, "known": [], "all": False, "csv": False}
    given["dtypes"] = {}
    with pytest.raises(reading.DataError, match="2 rows of 2 columns are more than 3 cells"):
        reading.predict(given | {"data": [{"sales": 1.0}, {"price": 1.0}]})


def test_an_answer_has_a_limit(made, monkeypatch):
    monkeypatch.setattr(reading, "_MOST_VALUES", 8)
    given = {"model": str(made), "path": None, "known": ["remark"], "all": False, "csv": False}
    given["dtypes"] = {}
    with pytest.raises(reading.DataError, match="gives 9 values, more than the 8 of an answer"):
        reading.predict(given | {"data": rows()})


def test_it_is_predicted_outside_of_the_service(client, monkeypatch):
    monkeypatch.setattr("tuner.prediction.Model.predict", None)
    assert client.post(URL, json={"rows": rows()}).status_code == 200
