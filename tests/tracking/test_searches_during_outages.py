"""Real searches while real MLflow servers, and disks, fail them."""

import os
import re
import resource
import signal
import subprocess

import pytest
from helpers.gateway import Gateway
from helpers.mlflow_server import MlflowServer
from helpers.real_searches import (
    LONGER,
    RUN,
    STUDY,
    begin,
    copy_at,
    full_copy,
    make_folder,
    result,
    tuner,
    when,
)

from tuner.tracking import open_store

pytestmark = pytest.mark.slow

LATER = f"the search continues, and `tuner sync {STUDY}` completes the copy later"
AGAIN = f"run `tuner sync {STUDY}` again later"


@pytest.fixture
def here(tmp_path):
    return make_folder(tmp_path / "here")


@pytest.fixture
def servers(tmp_path):
    """Makes servers, which are killed in the end."""
    made = []

    def make(*options, **settings):
        folder = tmp_path / f"server {len(made)}"
        folder.mkdir()
        made.append(MlflowServer(folder, *options, **settings))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def gateway(servers):
    gateway = Gateway(servers().start().url)
    yield gateway
    gateway.close()


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    """Returns what a search comes to without tracking."""
    results = {}

    def search(command):
        if command not in results:
            folder = make_folder(tmp_path_factory.mktemp("untracked"))
            assert tuner(folder, *command, "--no-tracking").status == 0
            results[command] = result(folder)
        return results[command]

    return search


def ended_well(ended, *warnings):
    assert (ended.status, ended.err) == (0, "")
    assert len(ended.said_of_mlflow) == len(warnings), ended.said_of_mlflow
    for said, warning in zip(ended.said_of_mlflow, warnings, strict=True):
        at_the_end = f"`tuner sync {STUDY}` completes the copy"
        assert said in (f"{warning}; {LATER}", f"{warning}; {at_the_end}")
        _, _, following = ended.out.partition("\nNext:\n")
        assert following.startswith(f"  tuner sync {STUDY}   (MLflow lacks trials)\n")


def sync_fails(folder, text):
    """Sync in vain; return the seconds."""
    failed = tuner(folder, "sync", STUDY)
    assert (failed.status, failed.out, failed.err) == (1, "", f"tuner: {text}; {AGAIN}\n")
    return failed.seconds


def sync_completes(folder, uri):
    """Sync, and again: the copy is then like one in a store that never failed."""
    first, second = tuner(folder, "sync", STUDY), tuner(folder, "sync", STUDY)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "0 created, 0 completed, 0 replaced, " in second.out
    assert copy_at(uri) == full_copy(folder)


def test_a_server_that_is_down_from_the_start(here, servers, untracked, monkeypatch):
    server = servers()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    away = f"the MLflow server at {server.url} does not answer (Connection refused)"
    ended_well(tuner(here, *RUN), away)
    assert result(here) == untracked(RUN)
    assert sync_fails(here, away) < 60  # MLflow's own patience is minutes
    sync_completes(here, server.start().url)


def test_a_server_that_is_killed_in_the_middle(here, servers, untracked, monkeypatch):
    server = servers().start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    ended = when(begin(here, *LONGER), "[2/4]", server.kill)
    (said,) = ended.said_of_mlflow
    cut_off = re.search(r"does not answer( \([\w ]+\))?(?=;)", said)  # a request, or refused
    assert cut_off, said
    ended_well(ended, f"the MLflow server at {server.url} {cut_off[0]}")
    assert result(here) == untracked(LONGER)
    sync_completes(here, server.start().url)


def test_a_server_that_begins_to_fail(here, gateway, untracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url)
    ended = when(begin(here, *LONGER), "[2/4]", lambda: setattr(gateway, "status", 500))
    fails = f"the MLflow server at {gateway.url} answers with error 500"
    ended_well(ended, fails)
    assert result(here) == untracked(LONGER)
    sync_fails(here, fails)
    gateway.answer_again()
    sync_completes(here, gateway.url)


def test_a_hanging_server_delays_the_end_by_half_a_minute(here, gateway, untracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url)
    ended = when(begin(here, *LONGER), "[3/4]", lambda: setattr(gateway, "silent", True))
    (said,) = ended.said_of_mlflow
    how = "does not answer (timed out)" if "(timed out)" in said else "takes too long to answer"
    ended_well(ended, f"the MLflow server at {gateway.url} {how}")  # as long as a search takes
    assert ended.seconds < 120  # of which the rest of the search takes some
    assert result(here) == untracked(LONGER)
    hangs = f"the MLflow server at {gateway.url} does not answer (timed out)"
    assert sync_fails(here, hangs) < 40
    gateway.answer_again()
    sync_completes(here, gateway.url)


def test_wrong_credentials_are_reported_as_such(here, servers, untracked, monkeypatch, tmp_path):
    password = "right password 12"
    accounts = tmp_path / "accounts.ini"
    accounts.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path / 'users.db'}\n"
        f"admin_username = admin\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(accounts),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of this test",
    }
    server = servers("--app-name", "basic-auth", settings=settings).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong password 12")
    refused = (
        f"the MLflow server at {server.url} refuses the credentials (401); set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )
    ended_well(tuner(here, *RUN), refused)
    assert result(here) == untracked(RUN)
    sync_fails(here, refused)
    shown = tuner(here, "ui", STUDY)
    assert (shown.status, shown.out, shown.err) == (1, "", f"tuner: {refused}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    sync_completes(here, server.url)


def test_ctrl_c_does_not_wait_for_a_server_that_answers_slowly(here, gateway, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url)

    def stop():
        gateway.delay_s = 20
        process.send_signal(signal.SIGINT)

    process = begin(here, *LONGER)
    ended = when(process, "[2/4]", stop)
    assert ended.status == 130
    assert ended.err == (
        "tuner: stopped; what was finished is kept, and the same command resumes\n"
    )
    assert ended.seconds < 30
    assert ended.said_of_mlflow == [
        f"the MLflow server at {gateway.url} takes too long to answer; "
        f"`tuner sync {STUDY}` completes the copy"
    ]
    gateway.answer_again()
    resumed = tuner(here, *LONGER)
    assert resumed.said_of_mlflow == []
    assert copy_at(gateway.url) == full_copy(here)


def test_a_workspace_of_a_server_is_used_or_said_not_to_be_there(here, servers, monkeypatch):
    server = servers("--enable-workspaces").start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    open_store().create_workspace("team")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    ended_well(tuner(here, *RUN))
    assert open_store().get_experiment_by_name("air") is not None
    monkeypatch.setenv("MLFLOW_WORKSPACE", "nobody")
    failed = tuner(here, "sync", STUDY)
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith(f"tuner: the MLflow server at {server.url}: ")
    assert "nobody" in failed.err
    monkeypatch.delenv("MLFLOW_WORKSPACE")
    assert open_store().get_experiment_by_name("air") is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    # Lazily: this process has read the store, and MLflow keeps its connections.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file):
    """Write until the disk is full."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    for size in (4096, 1):
        try:
            while True:
                os.write(descriptor, b"x" * size)
        except OSError:
            pass
    os.close(descriptor)


@pytest.mark.parametrize("store_is_there", [False, True])
def test_a_store_whose_disk_is_full(here, small_disk, untracked, monkeypatch, store_is_there):
    store = small_disk / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    if store_is_there:
        with monkeypatch.context() as patch:
            patch.chdir(here)
            open_store()
    fill(small_disk / "ballast")
    full = f"the MLflow store {store}: database or disk is full"
    ended_well(tuner(here, *RUN), full)
    assert result(here) == untracked(RUN)
    sync_fails(here, full)
    (small_disk / "ballast").unlink()
    sync_completes(here, f"sqlite:///{store}")
    assert [path.name for path in small_disk.iterdir()] == ["mlflow.db"]


def test_a_store_that_cannot_grow(here, untracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'full.db'}")
    open_store()
    limit = (here / "full.db").stat().st_size + 8192

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    ended = tuner(here, *RUN, preexec_fn=limited)
    ended_well(ended, "the MLflow store full.db: disk I/O error")
    assert result(here) == untracked(RUN)
    sync_completes(here, f"sqlite:///{here / 'full.db'}")
