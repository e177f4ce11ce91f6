"""A Ray cluster that somebody else runs, reached with Ray Client."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from helpers.ports import free_port

pytestmark = pytest.mark.slow

TOKEN = "0123456789abcdef" * 4

# Runs in a process of its own, as Ray keeps what it read of the environment when it was imported.
SEARCH = """
    import pathlib, sys, tempfile
    import numpy as np
    from helpers.prepared import write_series
    from tuner.errors import InputError, RunError
    from tuner.executors import Finished, LocalExecutor, Reported
    from tuner.executors import choose_executor
    from tuner.experiment.schema import Resources
    from tuner.jobs import TrainJob

    n_epochs = int(sys.argv[2])

    def outcomes(executor):
        for key in "ab":
            job = TrainJob(key, {"hidden_size": 4, "batch_size": 16}, 1, n_epochs, 9, "rmse",
                           (data,), can_be_pruned=True)
            executor.submit(job)
        ended = {}
        while len(ended) < 2:
            for event in executor.poll(0.5):
                if isinstance(event, Reported):
                    executor.answer(event.key, event.key == "a" or event.epoch.epoch < 1)
                if isinstance(event, Finished):
                    outcome = event.outcome
                    ended[event.key] = outcome.state, [e.metric for e in outcome.history]
        executor.close()
        return ended

    try:
        choice = choose_executor(sys.argv[1], Resources(cpus=0.5))
    except InputError as error:
        sys.exit(str(error))
    print(choice.capacity, choice.unit, flush=True)
    data = write_series(pathlib.Path(tempfile.mkdtemp()), np.sin(np.arange(120) / 3)[:, None],
                        train_end=80)
    try:
        found = outcomes(choice.make(2))
    except RunError as error:
        sys.exit(str(error))
    print([state.value for state, _ in sorted(found.values(), reverse=True)])
    print(found == outcomes(LocalExecutor(2)))
    print(outcomes(choice.make(1)) == found)  # it connects again
"""


@pytest.fixture(scope="module")
def head():
    """The port of a head node, which wants a token."""
    with running_head(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as (port, _):
        yield port


@contextmanager
def running_head(**environment):
    """Yield the port and the process of a head node."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # sockets need a short path
        log = Path(folder) / "log"
        options = {
            "port": 0,
            "ray-client-server-port": port,
            "num-cpus": 2,
            "num-gpus": 0,
            "object-store-memory": 200 * 2**20,
            "include-dashboard": "false",
            "temp-dir": folder,
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
                + [f"--{name}={value}" for name, value in options.items()],
                stdout=output,
                stderr=output,
                env=os.environ | environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        try:
            yield port, process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            psutil.wait_procs(children, timeout=60)


def command(port, n_epochs=3):
    script = textwrap.dedent(SEARCH)
    return [sys.executable, "-W", "error", "-c", script, f"ray://127.0.0.1:{port}", str(n_epochs)]


def environment_with(**variables):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return inherited | {"PYTHONPATH": str(Path(__file__).parents[1])} | variables


# What Ray says on a busy machine, where its server for a client takes too long to start.
TOO_SLOW = "Starting Ray client server failed"


def search(port, **variables):
    env = environment_with(**variables)
    for _ in range(3):
        done = subprocess.run(command(port), capture_output=True, text=True, timeout=600, env=env)
        if TOO_SLOW not in done.stderr:
            break
    return done


@contextmanager
def searching_long(port, errors, **variables):
    """Yield the process of a search that has found its cluster."""
    env = environment_with(**variables)
    for _ in range(3):
        with (
            errors.open("w") as stderr,
            subprocess.Popen(
                command(port, n_epochs=1_000_000), stdout=subprocess.PIPE, stderr=stderr, env=env
            ) as process,
        ):
            if process.stdout.readline():
                try:
                    yield process
                finally:
                    process.kill()
                return
        assert TOO_SLOW in errors.read_text(), errors.read_text()
    raise AssertionError(errors.read_text())


def test_jobs_on_a_cluster_come_to_what_they_come_to_here(head):
    done = search(head, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "4 the cluster's 2 CPUs",
        "['pruned', 'complete']",
        "True",
        "True",
    ]


def test_a_cluster_that_wants_a_token_says_how_to_give_it(head):
    done = search(head)
    assert done.stderr == (
        f"--executor: ray://127.0.0.1:{head} wants a token; set RAY_AUTH_MODE=token, and "
        f"RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the cluster\n"
    )


def test_a_cluster_that_goes_away_ends_the_search(tmp_path):
    with running_head(RAY_AUTH_MODE="disabled") as (port, process):
        errors, patience = tmp_path / "errors", {"RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2"}
        with searching_long(port, errors, **patience) as searching:
            time.sleep(8)
            assert searching.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            assert searching.wait(timeout=180) == 1
    last = errors.read_text().splitlines()[-1]
    assert last.startswith(f"lost the connection to ray://127.0.0.1:{port}: ")
    assert last.endswith("; the same command resumes")


def test_a_cluster_without_tuner_says_so(tmp_path):
    hide = "import sys; sys.modules['tuner'] = None"
    (tmp_path / "sitecustomize.py").write_text(hide)
    with running_head(RAY_AUTH_MODE="disabled", PYTHONPATH=str(tmp_path)) as (port, _):
        lines = search(port).stderr.splitlines()  # Ray may log a line of the server's after it
    (said,) = [line for line in lines if line.startswith("the cluster's nodes cannot run workers")]
    assert "tuner" in said
