"""Data files of clients: kept whole or not at all, and read within limits."""

import asyncio
import hashlib
import io
import json
import threading
import zipfile
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from helpers.asgi import Exchange
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tuner.errors import InputError
from tuner.service import confined, datasets
from tuner.service.access import Access, Owner, TokenFile
from tuner.service.app import make_app
from tuner.service.confined import Allowed, Confined
from tuner.service.datasets import DatasetStore, file_name
from tuner.service.problems import Problem
from tuner.service.settings import Limits, Settings

CSV = b"date,sales,store\n" + b"".join(
    b"2020-01-%02d,%d,a%d\n" % (i % 28 + 1, 3 * i, i % 2) for i in range(60)
)
SHA = hashlib.sha256(CSV).hexdigest()
MIB = 1 << 20


@pytest.fixture
def store(settings, shared):
    store = DatasetStore(settings.root, settings.limits)
    store.confined = shared
    return store


@pytest.fixture
def service(store):
    used = {}
    return SimpleNamespace(
        datasets=store, used=used, used_by=lambda owner, dataset: used.get((owner, dataset), [])
    )


@pytest.fixture
def client(service, settings):
    app = make_app(service, Access(), settings)
    return TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)


def put(store, content, name="sales.csv", owner="ana", **limits):
    with store.upload(Owner(owner, limits=Limits(**limits)), name) as upload:
        for start in range(0, len(content), MIB):
            upload.write(content[start : start + MIB])
        return upload.commit()


def left_in(store):
    """What is left of uploads that were not kept."""
    folder = store._folder
    return [p.name for p in folder.rglob("*") if p.is_file()] + [
        p.name for p in (folder / ".incoming").iterdir()
    ]


def test_an_uploaded_file_is_described_and_kept(client, settings):
    sent = client.post("/v1/datasets", params={"name": "sales.csv"}, content=CSV)
    assert sent.status_code == 201
    found = sent.json()
    assert found["id"] == SHA
    assert (found["name"], found["bytes"], found["rows"]) == ("sales.csv", len(CSV), 60)
    kinds = {column["name"]: column["kind"] for column in found["columns"]}
    assert kinds == {"date": "times", "sales": "numbers", "store": "text"}
    assert client.get(f"/v1/datasets/{SHA}").json() == found
    path = settings.root / "datasets/local" / SHA / "sales.csv"
    assert path.read_bytes() == CSV
    assert [p.stat().st_mode & 0o777 for p in path.parents[:3]] == [0o700] * 3


def test_the_same_content_twice_is_one_dataset(client):
    first = client.post("/v1/datasets", params={"name": "a.csv"}, content=CSV)
    again = client.put(f"/v1/datasets/{SHA}", params={"name": "b.csv"}, content=CSV)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert [one["name"] for one in client.get("/v1/datasets").json()["items"]] == ["a.csv"]


def test_the_same_content_twice_at_once_is_one_dataset(store):
    barrier, found = threading.Barrier(4), []

    def send():
        barrier.wait()
        found.append(put(store, CSV))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(is_new for _, is_new in found) == [False, False, False, True]
    assert len({known for known, _ in found}) == 1
    assert sorted(left_in(store)) == [".dataset.json", "sales.csv"]


def test_a_hash_that_differs_leaves_nothing(client, store):
    refused = client.put(f"/v1/datasets/{'0' * 64}", params={"name": "a.csv"}, content=CSV)
    assert refused.status_code == 422
    assert "another SHA-256 than the path" in refused.json()["detail"]
    assert left_in(store) == []
    assert store.size("local") == 0


def test_a_file_above_the_limit_of_an_owner_leaves_nothing(store):
    with pytest.raises(Problem, match="more than 1,000 bytes") as refused:
        put(store, CSV, upload_bytes=1000)
    assert refused.value.status == 413
    put(store, CSV)
    with pytest.raises(Problem, match="your files have more than 2,000 bytes") as refused:
        put(store, CSV + b"2020-02-01,1,a1\n", dataset_bytes=2000)
    assert refused.value.status == 413
    put(store, CSV + b"2020-02-01,1,a1\n", owner="ben", dataset_bytes=2000)
    assert len(left_in(store)) == 4
    assert store.size("ana") == len(CSV)


def test_uploads_in_progress_count_towards_the_limit(store):
    owner = Owner("ana", limits=Limits(dataset_bytes=1000))
    with store.upload(owner, "a.csv") as first, store.upload(owner, "b.csv") as second:
        first.write(b"x" * 600)
        with pytest.raises(Problem, match="your files have more than 1,000 bytes"):
            second.write(b"x" * 600)
    assert store.size("ana") == 0


def test_a_body_above_the_limit_of_the_server_is_413(service, tmp_path):
    settings = Settings(root=tmp_path / "root", limits=Limits(upload_bytes=1000))
    client = TestClient(
        make_app(service, Access(None, settings.limits), settings), base_url="http://127.0.0.1:8080"
    )
    parts = (CSV[i : i + 100] for i in range(0, len(CSV), 100))  # without a Content-Length
    for content in (CSV, parts):
        refused = client.post("/v1/datasets", params={"name": "a.csv"}, content=content)
        assert refused.status_code == 413
        assert "limit" in refused.json()["detail"]
    assert left_in(service.datasets) == []


def test_a_cut_connection_leaves_nothing(service, settings):
    path, length = f"/v1/datasets/{SHA}", {"Content-Length": str(len(CSV))}
    cut = Exchange("PUT", path, length, parts=((CSV[:500], True),), leaves=True)
    asyncio.run(cut.run(make_app(service, Access(), settings)))
    assert cut.status is None
    assert left_in(service.datasets) == []
    assert service.datasets.size("local") == 0


@pytest.mark.parametrize("when", ["write", "fsync", "rename"])
def test_a_full_disk_is_507_and_leaves_nothing(client, store, monkeypatch, when):
    def full(*_):
        raise OSError(28, "No space left on device")

    if when == "write":
        monkeypatch.setattr(datasets.Upload, "write", full)
    elif when == "fsync":
        monkeypatch.setattr(datasets.os, "fsync", full)
    else:
        monkeypatch.setattr(datasets.Path, "rename", full)
    refused = client.post("/v1/datasets", params={"name": "a.csv"}, content=CSV)
    assert refused.status_code == 507
    monkeypatch.undo()
    assert left_in(store) == []
    assert store.list("local") == []


def test_a_start_finds_what_was_kept_and_removes_the_rest(store, settings):
    known, _ = put(store, CSV)
    unfinished = store.upload(Owner("ana"), "b.csv")  # the service is killed now
    unfinished.write(b"a,b\n")
    damaged = settings.root / "datasets/ana" / ("1" * 64)
    damaged.mkdir()
    (damaged / ".dataset.json").write_text("{")
    again = DatasetStore(settings.root)
    assert again.list("ana") == [known]
    assert again.path_of("ana", SHA).read_bytes() == CSV
    assert [*(settings.root / "datasets/.incoming").iterdir()] == []
    unfinished.close()


def test_a_used_dataset_cannot_be_deleted(client, service):
    client.post("/v1/datasets", params={"name": "a.csv"}, content=CSV)
    service.used["local", SHA] = ["one", "two"]
    assert client.get(f"/v1/datasets/{SHA}").json()["used_by"] == ["one", "two"]
    refused = client.delete(f"/v1/datasets/{SHA}")
    assert refused.status_code == 409
    assert "study 'one', 'two' uses this dataset" in refused.json()["detail"]
    service.used.clear()
    with service.datasets.in_use("local", [SHA]):
        assert client.delete(f"/v1/datasets/{SHA}").status_code == 409
    assert client.delete(f"/v1/datasets/{SHA}").status_code == 204
    assert client.delete(f"/v1/datasets/{SHA}").status_code == 404
    assert client.get("/v1/datasets").json() == {"items": [], "next": None}
    assert left_in(service.datasets) == []


def test_a_dataset_of_another_owner_does_not_exist(service, settings, tokens, as_):
    app = make_app(service, Access(TokenFile(tokens[0])), settings)
    client = TestClient(app, base_url="http://127.0.0.1:8080")
    client.post("/v1/datasets", params={"name": "a.csv"}, content=CSV, headers=as_("ana"))
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/v1/datasets/{SHA}", headers=as_("ben"))
        assert answer.status_code == 404
        assert "ana" not in answer.text
    assert client.get("/v1/datasets", headers=as_("ben")).json()["items"] == []
    again = client.put(f"/v1/datasets/{SHA}?name=b.csv", content=CSV, headers=as_("ben"))
    assert (again.status_code, again.json()["name"]) == (201, "b.csv")
    for method, path in (("POST", ""), ("PUT", f"/{SHA}"), ("DELETE", f"/{SHA}")):
        answer = client.request(method, f"/v1/datasets{path}", headers=as_("ana", "read"))
        assert answer.status_code == 403


def test_a_list_has_pages_and_the_newest_first(client):
    for i in range(5):
        client.post(
            "/v1/datasets", params={"name": f"{i}.csv"}, content=CSV + b"2021-01-01,1,%d\n" % i
        )
    names, cursor = [], None
    while True:
        page = client.get(
            "/v1/datasets", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        )
        names += [one["name"] for one in page.json()["items"]]
        if (cursor := page.json()["next"]) is None:
            break
    assert names == [f"{i}.csv" for i in (4, 3, 2, 1, 0)]
    for wrong in ({"cursor": "x"}, {"cursor": "²"}, {"limit": 0}, {"limit": 1001}):
        assert client.get("/v1/datasets", params=wrong).status_code == 422


def workbook(cells, declared=None):
    """A workbook whose only sheet holds the text of its cells, compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
        archive.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
            f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/>'
            "</Types>",
        )
        space = "http://schemas.openxmlformats.org"
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{space}/spreadsheetml/2006/main" '
            f'xmlns:r="{space}/officeDocument/2006/relationships"><sheets>'
            '<sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="rId1" '
            f'Type="{space}/officeDocument/2006/relationships/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>',
        )
        archive.writestr("xl/worksheets/sheet1.xml", cells)
    return out.getvalue()


SHEET = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'


def entities():
    """Nested entities: a billion laughs."""
    lines = ['<!DOCTYPE worksheet [<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)]
    return "".join(lines) + f"]>{SHEET}<row><c><v>&a9;</v></c></row></sheetData></worksheet>"


def repeated(rows, columns):
    """A Parquet file of constants, which is small whatever it unpacks to."""
    column = pa.array([1.5]).take(pa.array([0] * rows))
    table = pa.table({f"c{i}": column for i in range(columns)})
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd", use_dictionary=True)
    return out.getvalue()


def test_an_entity_bomb_in_a_workbook_is_refused(store):
    with pytest.raises(InputError):
        put(store, workbook(entities()), "a.xlsx")
    assert left_in(store) == []


def test_a_workbook_that_takes_too_long_is_given_up(store, monkeypatch):
    rows = "<row>" + "<c><v>1</v></c>" * 2000 + "</row>"
    content, refused = workbook(SHEET + rows * 2000 + "</sheetData></worksheet>"), []
    assert len(content) < MIB
    monkeypatch.setattr(datasets, "reading_allowed", lambda n: Allowed(1.0, 256 * MIB))

    def send():
        with pytest.raises(InputError) as caught:
            put(store, content, "a.xlsx")
        refused.append(str(caught.value))

    slow = threading.Thread(target=send)
    slow.start()
    assert put(store, CSV, owner="ben")[1]
    slow.join()
    line = "a.xlsx: takes more than 1 s to be read, or 256 MiB of memory; give a smaller file"
    assert refused == [line]
    assert store.list("ana") == []


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(store, monkeypatch):
    content = repeated(500_000, 100)
    assert len(content) < MIB
    monkeypatch.setattr(datasets, "reading_allowed", lambda n: Allowed(20.0, 128 * MIB))
    with pytest.raises(InputError, match="128 MiB of memory") as refused:
        put(store, content, "a.parquet")
    assert "datasets" not in str(refused.value)
    assert left_in(store) == []


TOO_MUCH = {
    "rows": (b"a,b\n" + b"1,2\n" * 101, "must have at most 100 rows, got 101"),
    "columns": (
        b",".join(b"c%d" % i for i in range(21)) + b"\n" + b"1," * 20 + b"1\n",
        "20 columns",
    ),
    "name": (b"x" * 1001 + b",b\n1,2\n", "names of columns must have at most 1,000 characters"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_a_table_beyond_a_limit_is_refused(tmp_path, shared, what):
    content, rule = TOO_MUCH[what]
    store = DatasetStore(tmp_path, Limits(rows=100, columns=20))
    store.confined = shared
    with pytest.raises(InputError, match=rule):
        put(store, content)
    if what == "rows":
        with pytest.raises(InputError, match="100 rows, got 1,000"):
            put(store, repeated(1000, 2), "a.parquet")


UNREADABLE = {
    "a.csv": [b"", b"x", b"\0" * 100, b"a,a\n1,2\n", b"\xff\xfe\xff", b"a,b\n"],
    "a.parquet": [b"", b"PAR1", b"PAR1" + b"\xff" * 50 + b"PAR1", CSV],
    "a.xlsx": [b"", b"PK\3\4", CSV, workbook("<worksheet"), workbook("")],
    "a.jsonl": [b"{", b"[" * 100_000, b'{"a": ' * 10_000, CSV],
    "a.zip": [b"PK\3\4"],
    "a.pkl": [b"cos\nsystem\n(S'touch /tmp/x'\ntR."],
    "a.xls": [CSV],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_table_is_refused_in_one_line(client, store, name):
    for content in UNREADABLE[name]:
        refused = client.post("/v1/datasets", params={"name": name}, content=content)
        assert (refused.status_code, refused.headers["content-type"]) == (
            422, "application/problem+json"
        ), content[:20]  # fmt: skip
        detail = refused.json()["detail"]
        assert detail.startswith(f"{name}: ")
        assert "\n" not in detail
        assert "incoming" not in refused.text
        assert len(detail) < 1000
    assert left_in(store) == []


def test_a_file_whose_dialect_must_be_declared_is_kept(store):
    content = "日期,数量\n2020-01-01,1\n2020-01-02,2\n".encode("gb18030")
    known, _ = put(store, content)
    assert known.rows == 2
    unsure = "이름,y\n가,1\n".encode("cp949")
    assert put(store, unsure)[0].rows == 1


@given(st.text(max_size=300))
def test_any_name_becomes_one_of_a_file(name):
    kept = file_name(name)
    assert kept == file_name(kept)
    assert len(kept.encode()) <= 200
    assert "/" not in kept
    assert "\0" not in kept
    assert not kept.startswith((".", "-"))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sales.csv", "sales.csv"),
        ("../../etc/passwd", "passwd.csv"),
        ("C:\\data\\a b.xlsx", "a b.xlsx"),
        ("..", "data.csv"),
        (".csv", "data.csv"),
        ("/", "data.csv"),
        ("a\nb.parquet", "a_b.parquet"),
        ("größe.CSV", "größe.CSV"),
        ("ä" * 300 + ".parquet", "ä" * 96 + ".parquet"),
    ],
)
def test_a_name_keeps_its_ending_and_loses_its_folders(given, kept):
    assert file_name(given) == kept


def test_a_task_of_a_killed_process_is_done_by_a_new_one(store):
    put(store, CSV, owner="ben")
    store.confined._template._process.kill()
    store.confined._template._process.wait()
    assert put(store, CSV + b"2020-02-01,1,a1\n")[1]


def test_a_busy_owner_does_not_keep_others_from_reading(tmp_path, monkeypatch):
    """Half of the tasks at a time are an owner's at most, and few of them wait."""
    entered, release = threading.Semaphore(0), threading.Event()

    def ask(self, content, allowed, stop):
        if json.loads(content)["given"]["who"] == "ana":
            entered.release()
            release.wait(30)
        return b'{"result": 1}'

    monkeypatch.setattr(Confined, "_ask", ask)
    monkeypatch.setattr(confined, "_WAITING", 4)
    limited = Confined(tmp_path, n_at_once=2)

    def run(who):
        return limited.run("x", {"who": who}, owner=who, what="a.csv", allowed=Allowed(1.0, None))

    threads = [threading.Thread(target=run, args=("ana",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    entered.acquire(timeout=10)
    while limited._requests.waiting["ana"] < 4:
        pass
    assert not entered.acquire(blocking=False)  # one of the four runs
    with pytest.raises(Problem, match="4 files of yours") as refused:
        run("ana")
    assert refused.value.status == 429
    assert run("ben") == 1
    release.set()
    for thread in threads:
        thread.join()
    turns = limited._requests
    assert (turns.n_free, turns.waiting.total(), turns.running.total()) == (2, 0, 0)
