"""The same search again with another budget, while it runs and is followed."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.running_service import running_service
from helpers.simulated_study import SHORT, WAVES, waves_experiment
from helpers.thread_pool import ThreadPool

from tuner import Client
from tuner.experiment import dump_yaml

STUDY = "waves-random-0"
SOON_S = 120
RUN = ["run", "waves.yaml", "--no-tracking"]


class Gated(ThreadPool):
    """Workers of which each training needs a permit."""

    permits = threading.Semaphore(0)

    def run_job(self, job, report):
        assert self.permits.acquire(timeout=SOON_S)
        return super().run_job(job, report)


@pytest.fixture
def permits():
    Gated.permits = threading.Semaphore(0)
    yield Gated.permits
    Gated.permits.release(10_000)


@pytest.fixture
def service(settings, permits, tmp_path, monkeypatch, quick_baselines, no_mlflow_settings):
    """A service, for which the current folder has an experiment and its data."""
    monkeypatch.delenv("TUNER_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "waves.csv").write_text(WAVES)
    (tmp_path / "waves.yaml").write_text(dump_yaml(waves_experiment("waves.csv", **SHORT)))
    with running_service(dataclasses.replace(settings, workers=2), Gated) as running:
        monkeypatch.setenv("TUNER_SERVER", running.url)
        yield running
        permits.release(10_000)


@pytest.fixture
def follow(service):
    """Starts `tuner run` in a process of its own."""
    started = []

    def begin(*more):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "tuner", *RUN, *more]
        started.append(subprocess.Popen(command, env=environment, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(process, text):
    late = threading.Timer(SOON_S, process.kill)
    late.start()
    try:
        if not any(text in line for line in process.stdout):
            pytest.fail(f"no {text!r}: {process.stderr.read()}")
    finally:
        late.cancel()


def trials_of(printed):
    events = map(json.loads, printed.splitlines())
    return [e["trial"] for e in events if (e["event"], e.get("role")) == ("finished", "trial")]


def test_who_follows_a_search_follows_the_extended_one(follow, permits):
    first = follow("--json")
    permits.release(2)
    until(first, '"finished"')
    second = follow("--trials", "8")
    until(second, "joining")
    third = follow("--trials", "9", "--json")
    until(third, '"finished"')
    permits.release(10_000)
    ends = [process.communicate(timeout=SOON_S) for process in (first, second, third)]
    assert [process.returncode for process in (first, second, third)] == [0, 0, 0], ends
    assert sorted(trials_of(ends[2][0])[-8:]) == list(range(1, 9))
    assert set(range(2, 9)) <= set(trials_of(ends[0][0]))
    assert "result" in ends[0][0]
    assert Client().study(STUDY).facts()["trained"] == 9


def printed(process):
    out, error = process.communicate(timeout=SOON_S)
    assert process.returncode == 0, error
    return out


def test_fewer_trials_join_a_search_as_it_is(follow, permits):
    first = follow("--json")
    permits.release(2)
    until(first, '"finished"')
    second = follow("--trials", "2")
    until(second, f"{STUDY} keeps its 6 trials, not 2")
    permits.release(10_000)
    printed(first)
    ended = printed(second)
    assert "asked for" not in ended
    assert Client().study(STUDY).facts()["trained"] == 6
    assert f"{STUDY} keeps its 6 trials, not 2" in printed(follow("--trials", "2"))


def test_an_experiment_as_text_is_that_of_the_command(service, follow, permits):
    permits.release(10_000)
    client = Client()
    dataset, text = client.upload("waves.csv"), Path("waves.yaml").read_text()
    body = {"experiment": text, "datasets": {"waves.csv": dataset.id}, "tracking": False}
    study = client.study(client._connection.json("POST", "/v1/studies", body=body)["name"])
    ended = study.wait(SOON_S).facts()["ended"]
    assert "best" in printed(follow())
    assert study.facts()["ended"] == ended  # it was not queued again
    printed(follow("--trials", "7"))
    assert study.facts()["trained"] == 7
