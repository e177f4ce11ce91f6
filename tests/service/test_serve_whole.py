"""`tuner serve` as users start it: what it takes when idle, how it ends, who takes over."""

import hashlib
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import requests
from helpers.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.real_processes]

ROWS = "y\n" + "".join(f"{10 + i % 7}\n" for i in range(90))
SOON_S = 60


class Serve:
    """A process of `tuner serve` in a folder."""

    def __init__(self, folder, *options, **environment):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "tuner", "serve", "--port", str(self.port), *options]
        self.log = (folder / f"log-{self.port}").open("w+")
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def line(self):
        return self.process.stdout.readline()

    def stop(self, signum):
        """Send a signal; return the status, and the seconds until the end."""
        began = time.monotonic()
        self.process.send_signal(signum)
        status = self.process.wait(timeout=30)
        return status, time.monotonic() - began

    def submit(self, name, epochs=2):
        dataset = hashlib.sha256(ROWS.encode()).hexdigest()
        sent = requests.put(f"{self.url}/v1/datasets/{dataset}?name=y.csv", data=ROWS)
        assert sent.ok, sent.text
        experiment = {
            "name": name,
            "data": {"path": f"dataset:{dataset}", "target": "y"},
            "task": {"window": 6},
            "hyperparameters": {"hidden_size": 4},
            "search_space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.1}},
            "strategy": {"name": "random"},
            "budget": {"trials": 4, "epochs": epochs, "patience": epochs},
            "pruner": {"name": "none"},
            "finalists": {"top": 0},
        }
        body = {"experiment": experiment, "name": name, "tracking": False}
        answer = requests.post(f"{self.url}/v1/studies", json=body)
        assert answer.status_code == 201, answer.text

    def study(self, name):
        return requests.get(f"{self.url}/v1/studies/{name}").json()


@pytest.fixture
def serve(tmp_path):
    started = []

    def serve(*options):
        started.append(Serve(tmp_path, *options))
        return started[-1]

    yield serve
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
        one.log.close()


def until(condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_idle_service_is_small_and_has_no_torch(serve, monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    server = serve()
    assert server.line().startswith("serving on")
    assert requests.get(f"{server.url}/").status_code == 200
    memory = psutil.Process(server.process.pid).memory_info().rss
    assert memory < 250e6, f"{memory / 1e6:.0f} MB"
    server.stop(signal.SIGTERM)
    server.log.seek(0)
    imported = set(re.findall(r"\|\s+(\w+)$", server.log.read(), re.MULTILINE))
    assert "fastapi" in imported
    assert not imported & {"torch", "mlflow"}


def test_a_service_with_200_streams_ends_in_five_seconds(serve):
    server = serve("--workers", "1")
    server.line()
    server.submit("long", epochs=100_000)
    until(lambda: requests.get(f"{server.url}/v1/queue").json()["busy"] == 1)
    memory = psutil.Process(server.process.pid).memory_info().rss
    children = psutil.Process(server.process.pid).children(recursive=True)
    streams = [
        requests.get(f"{server.url}/v1/studies/long/events", stream=True, timeout=30)
        for _ in range(200)
    ]
    assert {stream.status_code for stream in streams} == {200}
    metrics = requests.get(f"{server.url}/metrics").text
    assert "tuner_event_streams 200" in metrics
    grown = psutil.Process(server.process.pid).memory_info().rss - memory
    assert grown < 300e6, f"{grown / 1e6:.0f} MB"
    status, seconds = server.stop(signal.SIGTERM)
    assert (status, server.process.stdout.read()) == (0, "")
    assert seconds < 5, f"{seconds:.1f} s"
    for stream in streams:
        assert b"event: begun" in stream.content  # its end is whole: nothing is raised
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    server.log.seek(0)
    assert "Traceback" not in server.log.read()

    again = serve("--workers", "1")
    again.line()
    until(lambda: requests.get(f"{again.url}/v1/queue").json()["busy"] == 1)
    assert again.study("long")["state"] == "running"
    assert requests.post(f"{again.url}/v1/studies/long/cancel").status_code == 202
    until(lambda: again.study("long")["state"] == "cancelled")


def test_a_second_service_takes_over_from_a_killed_one(serve):
    first = serve("--workers", "1")
    first.line()
    first.submit("a")
    second = serve("--workers", "1")
    assert "standing by" in second.line()
    assert requests.get(f"{second.url}/health").status_code == 200
    assert requests.get(f"{second.url}/ready").status_code == 503
    assert requests.get(f"{second.url}/v1/studies").headers["retry-after"]
    until(lambda: first.study("a")["state"] == "done")
    first.stop(signal.SIGKILL)
    began = time.monotonic()
    assert second.line().startswith(f"serving on {second.url}; ")
    assert time.monotonic() - began < 10
    assert second.study("a")["state"] == "done"
    second.submit("b")
    until(lambda: second.study("b")["state"] == "done")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--host: a service that other machines reach needs tokens"),
        (["--tokens", "none.yaml"], "none.yaml: cannot be read"),
        (["--executor", "cloud"], "--executor: unknown executor 'cloud'"),
        (["--journal", "mysql://x"], "--journal"),
        (["--workers", "-1"], "--workers: must be from 0"),
    ],
)
def test_a_service_that_cannot_work_is_refused_in_one_line(serve, options, message):
    server = serve(*options)
    assert server.process.wait(timeout=60) == 2
    server.log.seek(0)
    error = server.log.read()
    assert error.startswith("tuner: ")
    assert message in error
    assert error.count("\n") == 1
