"""The template of workers: what it forks, what is left when it or its search is killed."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.executor_events import events, go_on, n_finished, outcomes
from helpers.open_files import free_files, open_files

from tuner import template
from tuner.data import SeriesRef, Shape
from tuner.errors import RunError
from tuner.executors import LocalExecutor, Lost, Reported
from tuner.executors.forking import is_fit
from tuner.jobs import TrainJob
from tuner.template import Template, take_expected, workers_expected

SOON_S = 120.0


@pytest.fixture
def executor(monkeypatch):
    """Makes executors whose workers can import the modules of `helpers.workers`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    executors = []

    def make(n_workers, **options):
        executors.append(LocalExecutor(n_workers, **options))
        return executors[-1]

    yield make
    for each in executors:
        each.close()


def job(data, key="a", epochs=2, **fields):
    hyperparameters = {"hidden_size": 4, "batch_size": 16}
    return TrainJob(key, hyperparameters, 1, epochs, 1000, "rmse", (data,), **fields)


def nothing(key="a"):
    """A job for workers that do not train."""
    return job(SeriesRef("/nowhere", Shape("forecast", features=1)), key)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it is read, or meanwhile
        return False


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(true):
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begun(workers, *keys):
    """Poll until these jobs, which can be pruned, wait for their first answer."""
    return events(workers, lambda seen: {e.key for e in seen} >= set(keys))


def endless(data, key):
    return job(data, key, epochs=1_000_000, can_be_pruned=True)


def test_a_killed_worker_is_replaced_by_the_same_template(executor, data):
    workers = executor(1)
    workers.submit(endless(data, "a"))
    begun(workers, "a")
    (first,), forked_by = workers.pids, workers._template.pid
    assert parent_of(first) == forked_by
    os.kill(first, signal.SIGKILL)
    assert any(isinstance(e, Lost) for e in events(workers, bool))
    workers.submit(job(data, "b"))
    events(workers, n_finished(1))
    (second,) = workers.pids
    assert second != first
    assert parent_of(second) == forked_by


def test_workers_go_on_when_their_template_is_killed(executor, data):
    workers = executor(2)
    for key in "ab":
        workers.submit(endless(data, key))
    begun(workers, "a", "b")
    first, killed = list(workers.pids), workers._template.pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not lives(killed))
    for key in "ab":
        workers.answer(key, True)
    seen = events(workers, lambda seen: {e.key for e in seen} >= {"a", "b"})
    assert all(isinstance(event, Reported) for event in seen)
    assert workers.pids == first
    os.kill(first[0], signal.SIGKILL)  # what comes in its place is forked by another template
    (lost,) = [e for e in events(workers, bool, go_on) if isinstance(e, Lost)]
    assert lost.reason == "its worker died (its exit status is unknown)"
    workers.submit(job(data, "c"))
    events(workers, n_finished(1), go_on)
    assert first[1] in workers.pids
    (new,) = set(workers.pids) - set(first)
    assert parent_of(new) == workers._template.pid != killed


def test_a_closed_executor_leaves_no_process(executor, data):
    workers = executor(2)
    for key in "ab":
        workers.submit(endless(data, key))
    begun(workers, "a", "b")
    processes = [*workers.pids, workers._template.pid]
    workers.close()
    assert not any(map(lives, processes))


SEARCH = """
import sys, time
from tuner.template import workers_expected
import tuner.template
with workers_expected():
    print(tuner.template._expected[0].pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.real_processes
@pytest.mark.parametrize("after_s", [0.0, 1.0])
def test_a_template_that_imports_ends_with_its_search(after_s):
    search = subprocess.Popen([sys.executable, "-c", SEARCH], stdout=subprocess.PIPE, text=True)
    pid = int(search.stdout.readline())
    time.sleep(after_s)
    search.kill()
    search.wait()
    search.stdout.close()
    wait_until(lambda: not lives(pid))


def test_an_executor_takes_the_template_that_was_expected(executor, data):
    with workers_expected():
        (expected,) = template._expected
        with workers_expected():  # there is one already
            assert template._expected == [expected]
        workers = executor(1)
        assert workers._template is expected
        assert take_expected() is None
    assert not expected.has_ended
    workers.submit(job(data))
    events(workers, n_finished(1))
    assert parent_of(workers.pids[0]) == expected.pid


def test_a_template_that_nobody_takes_ends_with_the_block():
    with suppress(KeyError), workers_expected():
        (expected,) = template._expected
        raise KeyError
    assert not lives(expected.pid)
    assert take_expected() is None


def test_on_one_core_no_template_is_started_early(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    with workers_expected():
        assert template._expected == []


def test_expecting_workers_starts_the_template_alone(executor):
    workers = executor(2)
    workers.expect()
    assert workers._template is not None
    assert workers.pids == []


SHOWN = """\
import json, os, sys
from tuner import template
from tuner.executors import worker
shown = {"folder": os.getcwd(), "path": sys.path, "said": os.environ.get("SAID")}
open(os.environ["SHOWN"], "w").write(json.dumps(shown | {"group": os.getpgid(0) == os.getpid()}))
worker.main(int(sys.argv[1]))
"""


def test_a_fork_sees_what_a_process_started_now_would_see(executor, tmp_path, monkeypatch):
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "shown_by_a_fork.py").write_text(SHOWN)
    workers = executor(1, module="shown_by_a_fork")
    workers.expect()  # the template starts before all of this is so
    monkeypatch.setenv("SAID", "later")
    monkeypatch.setenv("SHOWN", str(tmp_path / "shown.json"))
    monkeypatch.syspath_prepend(str(libraries))
    monkeypatch.chdir(tmp_path)
    workers.submit(nothing())
    events(workers, lambda seen: (tmp_path / "shown.json").exists())
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert (shown["folder"], shown["said"]) == (str(tmp_path), "later")
    assert shown["path"][0] == str(libraries)
    assert shown["group"]  # of its own: Ctrl-C is for the coordinator alone


READY = """
import sys
from tuner.executors import worker
worker.prepare()
sys.exit(", ".join({"torch._dynamo", "sklearn"} & set(sys.modules)) or 0)
"""


@pytest.mark.real_processes
def test_a_worker_is_ready_without_what_few_jobs_need():
    done = subprocess.run([sys.executable, "-c", READY], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


SCORES = """\
import sys
from tuner.executors import worker
from tuner.executors.base import Work
from tuner.jobs import Outcome, OutcomeState
has = "sklearn.metrics" in sys.modules
outcome = Outcome(OutcomeState.FAILED, reason=str(has))
worker.prepare = lambda: Work(lambda job, report: outcome, None)
worker.main(int(sys.argv[1]))
"""


def test_an_idle_template_imports_what_scores_of_classes_need(executor, tmp_path, monkeypatch):
    (tmp_path / "says_what_is_imported.py").write_text(SCORES)
    monkeypatch.syspath_prepend(str(tmp_path))
    workers = executor(1, module="says_what_is_imported")
    workers.expect()
    deadline = time.monotonic() + SOON_S
    said = None
    while said != "True":
        assert time.monotonic() < deadline
        workers.submit(nothing())
        said = outcomes(events(workers, n_finished(1)))["a"].reason
        workers._remove(workers._workers[0])


def test_a_template_that_cannot_import_is_a_worker_that_died(executor, monkeypatch):
    monkeypatch.setattr(template, "_PROGRAM", "no_such_module")
    workers = executor(1)
    workers.submit(nothing())
    with pytest.raises(RunError) as caught:
        events(workers, bool)
    assert str(caught.value) == (
        "no worker can be started: it died (exit status 1): ImportError: No module named "
        "no_such_module; the same command resumes when one can be"
    )


def test_a_machine_without_room_for_a_fork_ends_the_search(executor, monkeypatch):
    monkeypatch.setattr(template, "_PROGRAM", "helpers.workers.refusing")
    workers = executor(1)
    workers.submit(nothing())
    with pytest.raises(RunError, match=r"started: it died \(exit status 1\): Cannot allocate mem"):
        events(workers, bool)


def test_a_worker_that_is_closed_before_its_fork_never_is(executor, monkeypatch):
    workers = executor(1, module="helpers.workers.environment")
    workers.submit(nothing("a"))
    (fork,) = [worker.process for worker in workers._workers]
    workers.end_job("a")
    workers._remove(workers._workers[0])
    workers.submit(nothing("b"))
    assert set(outcomes(events(workers, n_finished(1)))) == {"b"}
    assert fork.pid is None


@pytest.mark.parametrize(
    ("threads", "files", "expected"),
    [
        (["7"], ["/dev/null", "/dev/shm/nvidia"], True),
        (["7", "8"], ["/dev/null"], False),
        (["7"], ["/dev/null", "/dev/nvidiactl"], False),
    ],
)
def test_threads_and_gpus_make_a_template_unfit(tmp_path, threads, files, expected):
    for thread in threads:
        (tmp_path / "task" / thread).mkdir(parents=True)
    (tmp_path / "fd").mkdir()
    for number, file in enumerate(files):
        (tmp_path / "fd" / str(number)).symlink_to(file)
    assert is_fit(tmp_path) is expected


THREAD = """\
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""


@pytest.mark.real_processes
@pytest.mark.timeout(300)
def test_where_forks_are_not_safe_workers_are_started(executor, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(THREAD)
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    workers = executor(1, module="helpers.workers.environment")
    workers.submit(nothing())
    events(workers, n_finished(1))
    assert workers._template is None
    assert parent_of(workers.pids[0]) == os.getpid()


def test_without_descriptors_of_processes_workers_are_started(executor, monkeypatch):
    def refuse(pid):
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse)
    template.can_fork.cache_clear()
    try:
        with workers_expected():
            assert template._expected == []
        workers = executor(1, module="helpers.workers.environment")
        workers.submit(nothing())
        events(workers, n_finished(1))
    finally:
        template.can_fork.cache_clear()
    assert workers._template is None
    assert isinstance(workers._workers[0].process, subprocess.Popen)


def test_messages_may_be_larger_than_a_socket_holds(executor, monkeypatch):
    for number in range(40):
        monkeypatch.setenv(f"LONG_{number}", "x" * 10_000)
    workers = executor(2, module="helpers.workers.environment")
    for key in "ab":
        workers.submit(nothing(key))
    assert set(outcomes(events(workers, n_finished(2)))) == {"a", "b"}


@pytest.mark.parametrize("n_free", range(16))
def test_too_many_open_files_end_a_search_that_forks(executor, n_free):
    gc.collect()  # or what others left behind is closed meanwhile
    before = len(open_files())
    workers = executor(1, module="helpers.workers.environment")
    _ = workers._gpus  # looked up before
    text = ""
    with free_files(n_free):
        try:
            workers.submit(nothing())
            events(workers, n_finished(1))
        except RunError as error:
            text = str(error)
        workers.close()
    assert len(open_files()) == before
    assert text == "" or "Too many open files" in text
    assert n_free > 0 or text
    assert n_free < 15 or not text


def test_a_template_is_closed_twice_without_harm():
    made = Template()
    made.close()
    made.close()
    assert not lives(made.pid)
