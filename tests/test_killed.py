"""Searches whose processes are killed with SIGKILL again and again end like undisturbed ones."""

import json
import random
import signal
import time
from collections import Counter

import psutil
import pytest
from helpers.waves import EXPERIMENT, start, trials, tuner, write_series

from tuner.template import can_fork

pytestmark = [pytest.mark.slow, pytest.mark.real_processes, pytest.mark.timeout(3600)]

# Trials so long, the pruned ones too, that a kill meets the next one and not the one after it.
LONG = EXPERIMENT.replace(
    "trials: 12, epochs: 8", "trials: 60, epochs: 400, patience: 1000"
).replace("n_warmup_steps: 2", "n_warmup_steps: 200")
LONG += "training: {execution: single}\n"
TOGETHER = LONG.replace("trials: 60, epochs: 400", "trials: 24, epochs: 100")
TOGETHER = TOGETHER.replace("population: 4", "population: 8").replace("single", "batched")
N_KILLS = 50


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A folder in which the search ran undisturbed."""
    folder = tmp_path_factory.mktemp("calm")
    prepare(folder)
    tuner(folder, "run", "waves.yaml", "--workers", "1", "--no-tracking")
    return folder


def prepare(folder, experiment=LONG):
    write_series(folder)
    (folder / "waves.yaml").write_text(experiment)


def run(folder, workers):
    return start(folder, "run", "waves.yaml", "--workers", str(workers), "--no-tracking")


def outcomes(folder):
    """The trials' ids of the outcomes in the journal, in order; a torn last line is none."""
    path = folder / "studies" / "waves-woa-0.journal"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    # Only these lines are parsed: while we look for a result, the next trial trains on.
    found = [line for line in lines if b'"outcome"' in line and line.endswith(b"\n")]
    return [r["trial_id"] for r in map(json.loads, found) if "outcome" in r.get("user_attr", {})]


def kill(process, whom):
    """Kill the coordinator, its workers before it, or it before its workers."""
    children = psutil.Process(process.pid).children(recursive=True)
    victims = [psutil.Process(process.pid)]
    if whom == "workers too":
        victims = children + victims
    elif whom == "workers after":
        victims = victims + children
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate()


def test_fifty_kills_retrain_nothing_and_change_nothing(calm, tmp_path):
    prepare(tmp_path)
    rng = random.Random(2)
    n_kills = 0
    for life in range(N_KILLS):
        before = len(outcomes(tmp_path))
        # Mostly one worker: two may end their trials together, and the search would be over soon.
        process = run(tmp_path, workers=2 if life % 10 == 0 else 1)
        while process.poll() is None and len(outcomes(tmp_path)) == before:
            time.sleep(0.01)
        if process.poll() is not None:
            said = process.communicate()
            assert process.returncode == 0, said
            break
        time.sleep(rng.random() * 0.04)
        kill(process, rng.choice(["coordinator", "workers too", "workers after"]))
        n_kills += 1
    assert n_kills >= 0.8 * N_KILLS, "the search was over before it had been killed so often"
    tuner(tmp_path, "run", "waves.yaml", "--workers", "2", "--no-tracking")
    assert trials(tmp_path) == trials(calm)
    trained = Counter(outcomes(tmp_path))
    assert set(trained.values()) == {1}
    assert sorted(trained) == sorted(outcomes(calm))


def test_a_kill_between_retrainings_keeps_the_finalists(calm, tmp_path):
    lines = (calm / "studies" / "waves-woa-0.journal").read_bytes().splitlines(keepends=True)
    of_outcomes = [i for i, line in enumerate(lines) if b'"outcome"' in line]
    assert len(of_outcomes) == 60 + 2 * 2 + 2  # trials, finalists, and the default
    for life in (1, 4, 5):  # the last two in the middle of the default's
        folder = tmp_path / str(life)
        folder.mkdir()
        prepare(folder)
        (folder / "studies").mkdir()
        n_kept = 60 + life
        kept = b"".join(lines[: of_outcomes[n_kept - 1] + 1])
        (folder / "studies" / "waves-woa-0.journal").write_bytes(kept)
        process = run(folder, workers=1 + life % 2)
        while process.poll() is None and len(outcomes(folder)) == n_kept:
            time.sleep(0.01)
        kill(process, "workers too")
        tuner(folder, "run", "waves.yaml", "--workers", "2", "--no-tracking")
        assert trials(folder) == trials(calm)
        assert set(Counter(outcomes(folder)).values()) == {1}


def workers_of(process):
    """The workers of a search: where they are forked, the children of its template."""
    children = psutil.Process(process.pid).children()
    if not can_fork():
        return children
    return [worker for template in children for worker in template.children()]


def losses(folder):
    """How many of the journal's records say that a training was lost with its worker."""
    path = folder / "studies" / "waves-woa-0.journal"
    return sum(b'"lost"' in line for line in path.read_bytes().splitlines())


def test_ten_workers_killed_change_nothing(calm, tmp_path):
    prepare(tmp_path)
    rng = random.Random(3)
    process = start(
        tmp_path, "run", "waves.yaml", "--workers", "2", "--no-tracking",
        "--set", "budget.retries=50",
    )  # fmt: skip
    for _ in range(10):
        before = len(outcomes(tmp_path))
        while len(outcomes(tmp_path)) == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(rng.random() * 0.15)
        rng.choice(workers_of(process)).send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert losses(tmp_path) > 3  # a worker may have no job, at the end of a generation
    assert trials(tmp_path) == trials(calm)
    assert set(Counter(outcomes(tmp_path)).values()) == {1}


def test_kills_within_groups_change_nothing(tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
        prepare(folder, TOGETHER)
    tuner(calm, "run", "waves.yaml", "--workers", "1", "--no-tracking")
    rng, n_kills = random.Random(4), 0
    for life in range(12):
        before = len(outcomes(killed))
        process = run(killed, workers=1 + life % 2)
        begun = time.monotonic()
        while process.poll() is None and len(outcomes(killed)) == before:
            if life % 2 and time.monotonic() - begun > 4:  # before its first group has ended
                break
            time.sleep(0.001)
        if process.poll() is not None:
            break
        kill(process, rng.choice(["coordinator", "workers too"]))
        n_kills += 1
    assert n_kills > 3
    tuner(killed, "run", "waves.yaml", "--workers", "2", "--no-tracking")
    assert trials(killed) == trials(calm)
    assert set(Counter(outcomes(killed)).values()) == {1}
    assert groups(killed) == groups(calm)
    assert len(groups(calm)) > 3


def groups(folder):
    """The trials that were trained together, by the journal."""
    lines = (folder / "studies" / "waves-woa-0.journal").read_text().splitlines()
    found = [json.loads(line)["user_attr"]["group"] for line in lines if '"group":' in line]
    return {tuple(group) for group in found if len(group) > 1}
