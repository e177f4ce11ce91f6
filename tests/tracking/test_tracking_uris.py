"""Which tracking URIs are refused, and what is offered instead."""

from pathlib import Path

import pytest

from tuner.errors import InputError
from tuner.tracking import MlflowTracker, start_ui
from tuner.tracking.store import check_uri, is_database, is_folder, is_server, sqlite_path

EITHER = "http://HOST:PORT or sqlite:////PATH/mlflow.db"
PLAIN_FILES = "MLflow keeps no runs in plain files any more"
NO_FILE = "must name a file, after three slashes"
NO_SCHEME = "must begin with http:// or https://"

REFUSED = [
    ("foo://x", "MLflow knows no scheme 'foo'", EITHER),
    ("s3://bucket/mlruns", "MLflow knows no scheme 's3'", EITHER),
    ("htpp://localhost:5000", "MLflow knows no scheme 'htpp'", "http://localhost:5000"),
    ("postgres://ann@db/runs", "MLflow knows no scheme 'postgres'", "postgresql://db/runs"),
    ("http//localhost", NO_SCHEME, "http://localhost"),
    ("localhost:5000", NO_SCHEME, "http://localhost:5000"),
    ("10.0.0.1:5000/base", NO_SCHEME, "http://10.0.0.1:5000/base"),
    ("http:/localhost:5000", "must name a host", "http://localhost:5000"),
    ("https://", "must name a host", "http://HOST:PORT, say"),
    ("http://[::1", "cannot be read (Invalid IPv6 URL)", "http://HOST:PORT, say"),
    ("sqlite://", NO_FILE, "sqlite:///{here}/mlflow.db"),
    ("sqlite:///:memory:", NO_FILE, "sqlite:///{here}/mlflow.db"),
    ("sqlite://runs.db", NO_FILE, "sqlite:///{here}/runs.db"),
    ("sqlite:/data/runs.db", NO_FILE, "sqlite:////data/runs.db"),
    ("postgresql:db", "must name a server", "postgresql://HOST/DATABASE"),
    ("./mlruns", PLAIN_FILES, "sqlite:///{here}/mlruns/mlflow.db"),
    ("file:///data/mlruns", PLAIN_FILES, "sqlite:////data/mlruns/mlflow.db"),
    ("mlflow.db", PLAIN_FILES, "sqlite:///{here}/mlflow.db"),
]


@pytest.mark.parametrize(("uri", "rule", "write"), REFUSED, ids=[uri for uri, _, _ in REFUSED])
def test_an_unusable_tracking_uri_is_refused_with_a_remedy(uri, rule, write):
    with pytest.raises(InputError) as refused:
        check_uri(uri)
    write = write.format(here=Path.cwd())
    got = uri.replace("ann@", "")
    assert str(refused.value) == f"MLFLOW_TRACKING_URI: {rule}, got {got!r}; write {write}"


def test_a_port_that_is_none_is_refused_without_the_password():
    with pytest.raises(InputError) as refused:
        check_uri("http://ann:secret@localhost:50000000")
    assert "cannot be read (Port out of range 0-65535)" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("http://localhost:5000", is_server),
        ("HTTPS://ann:secret@mlflow.example.org/base/", is_server),
        ("http://[::1]:5000", is_server),
        ("databricks", is_server),
        ("databricks://profile", is_server),
        ("sqlite:///mlflow.db", is_database),
        ("sqlite+pysqlite:////data/mlflow.db", is_database),
        ("postgresql+psycopg://ann:secret@db/runs", is_database),
        ("mysql+pymysql://ann@db/runs", is_database),
    ],
)
def test_what_mlflow_can_use_is_of_one_kind(uri, kind):
    check_uri(uri)
    assert [k for k in (is_server, is_database, is_folder) if k(uri)] == [kind]


def test_plain_files_are_used_where_mlflow_allows_them(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_uri("./mlruns")
    assert is_folder("./mlruns")


def test_the_file_of_a_store_is_known_for_sqlite_alone():
    assert sqlite_path("sqlite:///runs.db") == Path("runs.db")
    assert sqlite_path("sqlite:////data/runs.db") == Path("/data/runs.db")
    assert sqlite_path("postgresql:///runs") is None
    assert sqlite_path("http://localhost") is None


def test_a_search_continues_with_one_warning_and_its_remedy(
    make_record, wait_for, monkeypatch, capfd
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    told = []
    tracker = MlflowTracker(make_record, "s1", told.append)
    wait_for(lambda: told)
    for _ in range(3):
        tracker.wake()
    assert not tracker.close(done=True)
    assert told == [
        "MLFLOW_TRACKING_URI: must begin with http:// or https://, got 'localhost:5000'; "
        "write http://localhost:5000; the search goes on, and `tuner sync s1` completes the "
        "copy later"
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("uri", ["foo://x", "http://[::1", "./mlruns"])
def test_the_ui_is_refused_before_anything_is_started(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("tuner.tracking.ui._server", lambda *_: pytest.fail("it was started"))
    with pytest.raises(InputError, match="^MLFLOW_TRACKING_URI: .*; write "), start_ui():
        pass


def test_a_hosted_store_has_a_ui_of_its_own(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(InputError, match="has a UI of its own; open it there"), start_ui():
        pass
