"""The whole product as a person runs it: a real command line, real workers, real signals."""

import random
import signal
import time

import numpy as np
import pytest
from helpers.waves import EXPERIMENT, start, trials, tuner, write_series

pytestmark = pytest.mark.real_processes


@pytest.fixture
def folder(tmp_path):
    def make(name, **series):
        path = tmp_path / name
        path.mkdir()
        write_series(path, **series)
        (path / "waves.yaml").write_text(EXPERIMENT)
        return path

    return make


@pytest.mark.slow
def test_a_search_killed_with_its_workers_ends_the_same(folder):
    calm, killed = folder("calm"), folder("killed")
    tuner(calm, "run", "waves.yaml", "--workers", "1", "--no-tracking")
    rng = random.Random(5)
    for _ in range(3):
        process = start(killed, "run", "waves.yaml", "--workers", "2", "--no-tracking")
        for _ in ("searching", "a result"):
            process.stdout.readline()
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    tuner(killed, "run", "waves.yaml", "--workers", "2", "--no-tracking")
    assert trials(killed) == trials(calm)


def test_the_test_set_changes_nothing_before_it_is_opened(folder):
    one, other = folder("one"), folder("other", changed={85: 1e6, 88: -3.0})
    for each in (one, other):
        tuner(each, "run", "waves.yaml", "--no-tracking")
    trials_of_one, finalists_of_one, test_of_one = trials(one)
    trials_of_other, finalists_of_other, test_of_other = trials(other)
    assert trials_of_one == trials_of_other
    assert finalists_of_one == finalists_of_other
    assert test_of_one["scores"] != test_of_other["scores"]


def test_a_worker_killed_in_the_middle_costs_nothing_but_time(folder):
    import psutil

    calm, hurt = folder("calm"), folder("hurt")
    tuner(calm, "run", "waves.yaml", "--no-tracking")
    process = start(hurt, "run", "waves.yaml", "--workers", "2", "--no-tracking")
    for _ in ("searching", "a result"):
        process.stdout.readline()
    for child in psutil.Process(process.pid).children():
        child.kill()
        break
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert trials(hurt) == trials(calm)


def test_the_test_score_uses_rows_the_search_never_saw(folder):
    path = folder("score")
    out = tuner(path, "run", "waves.yaml", "--no-tracking")
    _, finalists, test = trials(path)
    assert test["configuration"] == finalists[0]["trial"]
    assert len(test["scores"]) == 2
    assert (test["rows"], test["from"], test["to"]) == (12, "row 79", "row 90")
    y = np.loadtxt(path / "waves.csv", skiprows=1)
    naive = np.sqrt(np.mean((y[78:] - y[77:-1]) ** 2))
    seasonal = np.sqrt(np.mean((y[78:] - y[66:78]) ** 2))
    mean = np.sqrt(np.mean((y[78:] - y[:63].mean()) ** 2))
    plain = {"last_value": naive, "seasonal_naive": seasonal, "training_mean": mean}
    fitted = {"linear", "exponential_smoothing", "seasonal_arima"}
    assert test["baselines"].keys() == plain.keys() | fitted
    assert {name: test["baselines"][name] for name in plain} == pytest.approx(plain)
    assert len(test["default"]["scores"]) == 2
    assert "last value" in out
    assert "seasonal naive" in out
    assert "linear regression" in out
