"""Hostile requests to a whole service: each is refused with 4xx within a second."""

import hashlib
import io
import json
import zipfile
from itertools import pairwise

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.hostile import Clock, check_refused
from helpers.simulated_study import SPACE, START
from helpers.thread_pool import ThreadPool
from starlette.testclient import TestClient

from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.service import Service
from tuner.service.settings import Settings

SECRET = "a line of a file"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A client of a running service whose trials take no time, and a dataset in it."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret.csv").write_text(f"y\n{SECRET}\n")
    settings = Settings(root=folder / "root")
    settings.root.mkdir()
    service = Service(settings, ThreadPool)
    assert service.start()
    app = make_app(service, Access(), settings)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        content = "y\n" + "".join(f"{10 + i % 7}\n" for i in range(90))
        client.dataset = hashlib.sha256(content.encode()).hexdigest()
        answer = client.put(f"/v1/datasets/{client.dataset}?name=y.csv", content=content)
        assert answer.status_code == 201
        client.folder = folder
        yield client
    service.stop()


def experiment(client, **changes):
    """An experiment that would be accepted; `changes` are by dotted key."""
    raw = {
        "name": "hostile",
        "data": {
            "path": f"dataset:{client.dataset}",
            "target": "y",
            "split": {"validation": 15, "test": 12},
        },
        "task": {"window": 6},
        "search_space": dict(SPACE),
        "hyperparameters": dict(START),
        "strategy": {"name": "random"},
        "budget": {"trials": 6, "epochs": 2},
    }
    for key, value in changes.items():
        block, *names = raw, *key.split(".")
        for name in names[:-1]:
            block = block.setdefault(name, {})
        block[names[-1]] = value
    return raw


def check(answer, clock, client):
    """Check that a request was refused, quickly, in one line, and nothing was shown."""
    check_refused(answer, clock, (SECRET, str(client.folder)))


CHANGES = {
    "a path": {"data.path": "/etc/passwd"},
    "a path upwards": {"data.path": "../../../../etc/passwd"},
    "a path into the service": {"data.path": "tuner-service/service.journal"},
    "a file URL": {"data.path": "file:///etc/passwd"},
    "a URL of a cloud": {"data.path": "http://169.254.169.254/latest/meta-data"},
    "a bucket": {"data.path": "s3://bucket/key.parquet"},
    "a device": {"data.path": "/dev/zero"},
    "a dataset that is a path": {"data.path": "dataset:../../secret.csv"},
    "an unknown dataset": {"data.path": "dataset:" + "0" * 64},
    "an upper case id": {"data.path": "dataset:" + "A" * 64},
    "a list as a path": {"data.path": ["/etc/passwd"]},
    "a test file": {"data.split": {"test_file": "/etc/passwd"}},
    "a space in a file": {"search_space": "/etc/passwd"},
    "a cell of the user": {"hyperparameters.cell": "os:system"},
    "a cell in the space": {"search_space.cell": {"type": "categorical", "choices": ["os:system"]}},
    "a metric of the user": {"objective.metric": "subprocess:run"},
    "an expression that calls": {"objective.metric": "__import__('os').system('id')"},
    "an expression that loops": {"objective.metric": "9**9**9**9"},
    "cells that an export has": {"cells": {"os:system": {}}, "hyperparameters.cell": "os:system"},
    "an unknown key": {"data.url": "http://example.com"},
    "too many trials": {"budget.trials": 10**9},
    "no limit of trials": {"budget.trials": None},
    "negative trials": {"budget.trials": -1},
    "a text for a number": {"budget.trials": "6; rm -rf /"},
    "a huge integer": {"budget.epochs": 10**18},
    "a huge window": {"task.window": 10**12},
    "a huge model": {"hyperparameters.hidden_size": 10**9},
    "a huge choice": {"search_space.hidden_size": {"type": "int", "low": 1, "high": 10**15}},
    "many choices": {
        "search_space.hidden_size": {"type": "categorical", "choices": list(range(1, 20_000))}
    },
    "a huge population": {"strategy": {"name": "pso", "population": 10**9}},
    "many targets": {"data.target": [f"y{i}" for i in range(5000)]},
    "a column that is a path": {"data.target": "../../etc/passwd"},
    "an unknown encoding": {"data.read": {"encoding": "rot13"}},
}

BODIES = {
    "no object": [],
    "a text": "experiment",
    "no experiment": {},
    "an empty text": {"experiment": ""},
    "a list as the experiment": {"experiment": []},
    "a list as YAML": {"experiment": "- 1\n- 2\n"},
    "aliases": {
        "experiment": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in pairwise("abcdefghi"))
    },
    "merged aliases": {"experiment": "a: &a {x: 1}\nb: &b {<<: *a, y: *a}\nc: {<<: [*a, *b]}\n"},
    "an alias of itself": {"experiment": "a: &a [*a]\n"},
    "deep YAML": {"experiment": "[" * 100_000},
    "deep YAML in blocks": {"experiment": "".join(" " * i + "a:\n" for i in range(600))},
    "a tag of Python": {"experiment": "a: !!python/object/apply:os.system ['id']\n"},
    "a tag of ours": {"experiment": "a: !x/y {b: 1}\n"},
    "a key twice": {"experiment": "data: {path: a}\ndata: {path: b}\n"},
    "a key that is a list": {"experiment": "? [a, b]\n: 1\n"},
    "a date that is none": {"experiment": "a: 2020-99-99\n"},
    "a million keys": {"experiment": "".join(f"k{i}: 1\n" for i in range(20_000))},
    "another document": {"experiment": "a: 1\n---\nb: 2\n"},
    "signs of control": {"experiment": "a: \x07\x1b[2J\n"},
    "a priority too high": {"priority": 11},
    "a priority that is no number": {"priority": "first"},
    "no workers": {"max_workers": 0},
    "an unknown field": {"owner": "ben"},
    "a study of somebody": {"from": ["../ben/study"]},
    "many sources": {"from": ["a"] * 1000},
    "a map to a path": {"datasets": {"a.csv": "/etc/passwd"}},
    "many datasets": {"datasets": {f"{i}.csv": "0" * 64 for i in range(1000)}},
    **{
        f"the name {name[:12]!r}": {"name": name}
        for name in (
            *("", ".", "..", "../x", "a/b", "a\\b", "/etc/cron.d/x", "a\nb", " ", "x" * 300),
            *("a:b", ".hidden", "a\u202eb"),
        )
    },
}

RAW = {
    "a million levels": b"[" * 200_000,
    "a million objects": b'{"experiment":' * 15_000,
    "too many bytes": b'"' + b"x" * 300_000 + b'"',
    "no JSON": b"experiment=1",
    "XML with an entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "NaN": b'{"experiment": NaN}',
    "infinity": b'{"experiment": {"budget": {"trials": 1e999}}}',
    "many digits": b'{"priority": ' + b"9" * 100_000 + b"}",
    "a field twice": b'{"name": "a", "name": "b"}',
    "U+0000": b'{"name": "a\\u0000b"}',
    "half a pair": b'{"name": "\\ud800"}',
    "no UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "compressed": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff",
    "nothing": b"",
}

REQUESTS = {
    "a study upwards": ("GET", "/v1/studies/..%2f..%2fetc%2fpasswd"),
    "a study with a zero byte": ("GET", "/v1/studies/a%00b"),
    "a study of a long name": ("GET", "/v1/studies/" + "x" * 5000),
    "a study that is no UTF-8": ("GET", "/v1/studies/%ff%fe"),
    "a model upwards": ("GET", "/v1/studies/..%2f..%2f/model"),
    "a report of nothing": ("GET", "/v1/studies/nothing/report"),
    "events of nothing": ("GET", "/v1/studies/nothing/events"),
    "a dataset upwards": ("GET", "/v1/datasets/..%2f..%2fservice.journal"),
    "a dataset to delete": ("DELETE", "/v1/datasets/%2e%2e"),
    "a page of nothing": ("GET", "/v1/studies?limit=0"),
    "a page of all": ("GET", "/v1/studies?limit=1000000000"),
    "a cursor that is none": ("GET", "/v1/studies?cursor=-1"),
    "a cursor of SQL": ("GET", "/v1/studies?cursor=1;DROP%20TABLE%20studies"),
    "a huge cursor": ("GET", "/v1/studies?cursor=" + "9" * 5000),
    "a state that is none": ("GET", "/v1/studies?state=dead"),
    "a long query": ("GET", "/v1/studies?q=" + "x" * 5000),
    "an unknown method": ("FETCH", "/v1/studies"),
    "TRACE": ("TRACE", "/v1/studies"),
    "a method that is not here": ("PATCH", "/v1/studies"),
    "static files upwards": ("GET", "/static/..%2f..%2faccess.py"),
    "static files by a path": ("GET", "/static//etc/passwd"),
    "docs of another host": ("GET", "/docs"),
    "a hidden file": ("GET", "/.git/config"),
}


MANY = 250_000  # bytes, nearly the limit
WORKER = "0" * 32
POSTS = {
    "rows that are none": ("/v1/studies/a/predict", {"rows": [1] * (MANY // 3)}),
    "rows of other columns": (
        "/v1/studies/a/predict",
        {"rows": [{f"c{i}": 1} for i in range(MANY // 15)]},
    ),
    "lists as values": (
        "/v1/external-studies/a/trials/0/report",
        {"lease": "a", "values": [[]] * (MANY // 4)},
    ),
    "texts as values": (
        "/v1/external-studies/a/trials/0/report",
        {"lease": "a", "values": ["x"] * 9_999},
    ),
    "many keys": ("/v1/external-studies/a/ask", {f"k{i}": 1 for i in range(MANY // 13)}),
    "many broken keys": ("/v1/external-studies", {f"k{i}": [] for i in range(MANY // 14)}),
    "events that are none": (
        f"/v1/workers/{WORKER}/events",
        {"first": 0, "events": [{}] * 9_999},
    ),
    "many features": (
        "/v1/experiments:init",
        {"dataset": WORKER, "features": ["x"] * (MANY // 6)},
    ),
    "many paths": ("/v1/experiments:check", {"experiment": {}, "datasets": {"/": "x"}}),
    "many broken lists": ("/v1/studies", {"experiment": {}, "from": [[]] * (MANY // 4)}),
    "nested lists": ("/v1/studies", {"experiment": [[[[]]]] * (MANY // 12)}),
    "a body for nothing": ("/health", [1] * (MANY // 3)),
}


def zip_bomb():
    """An Excel file of 30 KiB that is 30 MiB, and claims to be a sheet."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("[Content_Types].xml", b" " * (30 << 20))
            archive.writestr("xl/workbook.xml", b"<a>" * 1_000_000)
        return file.getvalue()


def parquet_bomb(n_rows=200_000_000):
    """A Parquet file of a few kilobytes with very many rows."""
    with io.BytesIO() as file:
        column = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(1000, np.int8)), pa.array(["x" * 1000])
        )
        table = pa.table({"y": pa.concat_arrays([column] * 1000)})
        with pq.ParquetWriter(file, table.schema) as writer:
            for _ in range(n_rows // 1_000_000):
                writer.write_table(table)
        return file.getvalue()


def wide_parquet():
    with io.BytesIO() as file:
        pq.write_table(pa.table({f"c{i}": [1.0] for i in range(3000)}), file)
        return file.getvalue()


UPLOADS = {
    "nothing": ("a.csv", lambda: b""),
    "a line without end": ("a.csv", lambda: b"x" * 3_000_000),
    "many columns": ("a.csv", lambda: b",".join(b"c%d" % i for i in range(100_000)) + b"\n"),
    "zero bytes": ("a.csv", lambda: b"\0" * 100_000),
    "noise": ("a.csv", lambda: np.random.default_rng(0).bytes(100_000)),
    "noise as Excel": ("a.xlsx", lambda: np.random.default_rng(0).bytes(100_000)),
    "noise as Parquet": (
        "a.parquet",
        lambda: b"PAR1" + np.random.default_rng(0).bytes(9000) + b"PAR1",
    ),
    "half a Parquet file": ("a.parquet", lambda: wide_parquet()[:5000]),
    "a wide Parquet file": ("a.parquet", wide_parquet),
    "a Parquet bomb": ("a.parquet", parquet_bomb),
    "a zip bomb": ("a.xlsx", zip_bomb),
    "a pickle": ("a.pkl", lambda: b"cos\nsystem\n(S'id'\ntR."),
    "an unknown format": ("a.exe", lambda: b"MZ"),
    "deep JSON lines": ("a.jsonl", lambda: b"[" * 100_000),
    "a long name": ("x" * 5000 + ".csv", lambda: b"y\n1\n2\n"),
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_hostile_experiment_is_refused(served, changes):
    body = {"experiment": experiment(served, **changes)}
    clock = Clock()
    check(served.post("/v1/studies", json=body), clock, served)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_hostile_submission_is_refused(served, body):
    if isinstance(body, dict) and body and "experiment" not in body:
        body = {"experiment": experiment(served), **body}
    clock = Clock()
    check(served.post("/v1/studies", json=body), clock, served)


@pytest.mark.parametrize("content", RAW.values(), ids=RAW)
def test_a_hostile_body_is_refused(served, content):
    clock = Clock()
    headers = {"Content-Type": "application/json"}
    check(served.post("/v1/studies", content=content, headers=headers), clock, served)


@pytest.mark.parametrize(("method", "path"), REQUESTS.values(), ids=REQUESTS)
def test_a_hostile_request_is_refused(served, method, path):
    clock = Clock()
    check(served.request(method, path), clock, served)


@pytest.mark.parametrize(("path", "body"), POSTS.values(), ids=POSTS)
def test_a_hostile_body_of_any_route_is_refused(served, path, body):
    clock = Clock()
    check(served.post(path, json=body), clock, served)


@pytest.mark.parametrize("content", [b"[" * 3_000_000, b"[" + b"{}," * 1_000_000, b'"' * 3_000_001])
def test_a_hostile_upload_is_not_read_as_json(served, content):
    headers = {"Content-Type": "application/json"}
    before = psutil.Process().memory_info().rss
    clock = Clock()
    answer = served.post("/v1/datasets?name=a.jsonl", content=content, headers=headers)
    check(answer, clock, served)
    assert psutil.Process().memory_info().rss - before < 30 << 20


@pytest.mark.parametrize(("name", "make"), UPLOADS.values(), ids=UPLOADS)
def test_a_hostile_upload_is_refused(served, name, make):
    content = make()
    before = psutil.Process().memory_info().rss
    clock = Clock()
    answer = served.post("/v1/datasets", params={"name": name}, content=content)
    check(answer, clock, served)
    assert psutil.Process().memory_info().rss - before < 100 << 20


@pytest.mark.parametrize("name", ["../../a.csv", "/etc/a.csv", "..\\..\\a.csv", "x\n/a.csv"])
def test_an_upload_is_kept_under_a_plain_name(served, name):
    content = f"y\n1\n{len(name)}\n"
    answer = served.post("/v1/datasets", params={"name": name}, content=content)
    if answer.status_code == 201:
        assert not set("/\n") & set(answer.json()["name"])
        assert served.delete(f"/v1/datasets/{answer.json()['id']}").status_code == 204
    else:
        assert answer.status_code == 422


def test_an_upload_with_another_hash_is_refused(served):
    clock = Clock()
    check(served.put(f"/v1/datasets/{'0' * 64}?name=a.csv", content=b"y\n1\n2\n"), clock, served)


def test_nothing_hostile_has_left_anything(served):
    assert served.get("/v1/studies").json()["items"] == []
    assert len(served.get("/v1/datasets").json()["items"]) == 1
    files = [p for p in (served.folder / "root" / "datasets").rglob("*") if p.is_file()]
    assert len([p for p in files if p.suffix == ".csv"]) == 1
    assert json.dumps(served.get("/health").json()) == '{"status": "ok"}'
