"""`tuner cancel`, `resume` and `delete` of a service, and what is not ready yet."""

import dataclasses
import os
import pty
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.running_service import running_service
from helpers.simulated_study import SHORT, WAVES, waves_experiment
from helpers.thread_pool import ThreadPool

from tuner import Client
from tuner.report.page import id_of

STUDY = "waves-random-0"
SOON_S = 60


class Gated(ThreadPool):
    """Workers that wait for `go` before each training."""

    asked, go = threading.Event(), threading.Event()

    def run_job(self, job, report):
        self.asked.set()
        assert self.go.wait(SOON_S)
        return super().run_job(job, report)


@pytest.fixture
def go():
    """Lets the workers train once it is set."""
    Gated.asked.clear()
    Gated.go.clear()
    return Gated.go


@pytest.fixture
def service(settings, go, tmp_path, monkeypatch, baselines_fitted_once, no_mlflow_settings):
    """A service, in whose folder of clients the commands run."""
    monkeypatch.delenv("TUNER_TOKEN", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "waves.csv").write_text(WAVES)
    with running_service(dataclasses.replace(settings, workers=2), Gated) as running:
        monkeypatch.setenv("TUNER_SERVER", running.url)
        yield running
        go.set()


@pytest.fixture
def study(service):
    return Client().submit(waves_experiment("waves.csv", **SHORT), tracking=False)


def test_a_study_is_cancelled_resumed_and_deleted(go, study, tuner):
    status, out, _ = tuner("cancel", STUDY)
    resumes = f"`tuner resume {STUDY}` goes on with it"
    assert (status, out) == (0, f"{STUDY} is cancelled, 0 of 6 trials trained; {resumes}\n")
    assert tuner("cancel", STUDY)[:2] == (0, out)
    go.set()
    url = Client().server
    status, out, _ = tuner("resume", STUDY, "--server", url)
    shows = f"`tuner show {STUDY} --server {url}` shows it"
    assert (status, out) == (0, f"{STUDY} is queued, 0 of 6 trials trained; {shows}\n")
    study.wait(SOON_S)
    for command, then in {"cancel": "nothing is to cancel", "resume": "extend it"}.items():
        status, out, error = tuner(command, STUDY)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert then in error
    assert tuner("delete", STUDY, "--yes") == (0, f"{STUDY} is deleted\n", "")
    assert list(Client().studies()) == []


def test_a_delete_needs_a_terminal_that_confirms_it(go, study, tuner):
    go.set()
    study.wait(SOON_S)
    what = f"{STUDY} (done, 6 of 6 trials trained) with its journal and model"
    line = f"tuner: delete: deletes {what} for good; add --yes\n"
    assert tuner("delete", STUDY) == (2, "", line)
    for typed, expected in ((b"n\n", f"tuner: {STUDY} is kept\n"), (b"\x04", "tuner: stopped\n")):
        status, error = answered(typed, "delete", STUDY, tuner=tuner)
        assert status == (1 if typed == b"n\n" else 130)
        assert error.startswith(f"Delete {what} for good? [y/N]")
        assert error.endswith(expected)
        assert study.state == "done"
    assert answered(b"y\n", "delete", STUDY, tuner=tuner)[0] == 0
    assert list(Client().studies()) == []


def answered(typed, *arguments, tuner):
    """Run a command on whose terminal somebody types; return the status and standard error."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        master, slave = pty.openpty()
        stack.callback(os.close, master)
        terminal = stack.enter_context(os.fdopen(slave))
        os.write(master, typed)
        patch.setattr("sys.stdin", terminal)
        status, _, error = tuner(*arguments)
        return status, error


def test_a_study_that_runs_is_not_deleted(study, tuner):
    status, _, error = tuner("delete", STUDY, "--yes")
    assert status == 3
    assert error in [
        f"tuner: {STUDY}: is {state}; `tuner cancel {STUDY}` ends it\n"
        for state in ("queued", "running")
    ]


NEEDS_RESULTS = [["export", STUDY], ["report", STUDY], ["predict", STUDY, "waves.csv"],
                 ["sync", STUDY]]  # fmt: skip


def test_what_is_not_ready_yet_has_status_3(study, tuner):
    assert Gated.asked.wait(SOON_S)  # so there is a record, of trials that have not ended
    for arguments in NEEDS_RESULTS:
        status, out, error = tuner(*arguments)
        assert (status, out, error.count("\n")) == (3, "", 1), (arguments, error)
        assert not Path(f"{STUDY}.html").exists()
    study.cancel()  # now waiting does not help
    for arguments in NEEDS_RESULTS[:-1]:
        assert tuner(*arguments)[0] in (1, 2), arguments


def test_a_misspelt_study_is_answered_with_the_nearest(study, tuner):
    near = f"tuner: no study 'wave-random-0'; did you mean {STUDY!r}?\n"
    for command in ("show", "export", "report", "sync", "cancel", "resume", "delete"):
        assert tuner(command, "wave-random-0") == (2, "", near), command
    assert tuner("predict", "wave-random-0", "waves.csv") == (2, "", near)
    assert tuner("show", "something") == (2, "", "tuner: no study 'something'\n")


@pytest.mark.slow
def test_a_report_of_another_services_study_is_kept(go, study, tuner, tmp_path):
    go.set()
    study.wait(SOON_S)
    other = f"{STUDY}.html"
    assert tuner("report", STUDY) == (0, f"wrote {other}\n", "")
    text = (tmp_path / "work" / other).read_text()
    assert tuner("report", STUDY)[0] == 0  # of the same study
    assert id_of(text) == study.record()[0].id
    theirs = text.replace(id_of(text), "0" * 32)
    (tmp_path / "work" / other).write_text(theirs)
    status, _, error = tuner("report", STUDY)
    what = f"{other} exists and is no report of {STUDY} at {Client().server}"
    assert (status, error) == (2, f"tuner: -o: {what}; write elsewhere, or add --force\n")
    assert (tmp_path / "work" / other).read_text() == theirs
    assert tuner("report", STUDY, "--force")[0] == 0
    assert (tmp_path / "work" / other).read_text() == text


@pytest.mark.parametrize("command", ["cancel", "resume", "delete"])
def test_what_changes_a_service_names_it(command, tuner, monkeypatch):
    monkeypatch.delenv("TUNER_SERVER", raising=False)
    for options in ([], ["--server", "local"]):
        status, out, error = tuner(command, STUDY, *options)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert error.startswith(
            "tuner: --server: the URL of a service is missing; give --server URL, or set "
            "TUNER_SERVER; "
        )


INIT_OPTIONS = [
    [],
    ["-o", "mine.yaml"],
    ["-o", "sub/mine.yaml", "--horizon", "3"],
    ["--no-time", "--target", "y", "--features", "y", "--read", "decimal=."],
]


@pytest.mark.parametrize("options", INIT_OPTIONS, ids=" ".join)
def test_init_at_a_service_writes_what_it_writes_here(service, tuner, options, tmp_path):
    (tmp_path / "work" / "sub").mkdir()
    file = tmp_path / "work" / (options[1] if options[:1] == ["-o"] else "waves.yaml")
    here = tuner("init", "waves.csv", *options, "--server", "local")
    text = file.read_text()
    file.unlink()
    there = tuner("init", "waves.csv", *options)
    assert (file.read_text(), here[0]) == (text, 0)
    assert without_option(here) == there


def without_option(printed):
    """Return what was printed without the option by which this machine was chosen."""
    return tuple(str(p).replace(" --server local", "") if p != 0 else 0 for p in printed)


@pytest.mark.parametrize(
    "arguments",
    [["waves.csv", "--target", "yy"], ["nothing.csv"], ["waves.csv", "--horizon", "0"]],
    ids=" ".join,
)
def test_init_at_a_service_refuses_what_it_refuses_here(service, tuner, arguments):
    found = tuner("init", *arguments)
    assert found == tuner("init", *arguments, "--server", "local")
    assert found[0] == 2
    assert not Path("waves.yaml").exists()
