"""A search as a person runs it, on a PostgreSQL server that is restarted again and again."""

import json
import random
import time

import pytest
from helpers.postgresql import schema_of_its_own
from helpers.waves import EXPERIMENT, start, tuner, write_series

from tuner.errors import InputError
from tuner.journal.records import Status, read_study
from tuner.journal.storage import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

N_RESTARTS = 6
# Trials so long, the pruned ones too, that few end between two restarts.
LONG = EXPERIMENT.replace(
    "trials: 12, epochs: 8", "trials: 24, epochs: 150, patience: 1000"
).replace("n_warmup_steps: 2", "n_warmup_steps: 100")
STUDY = "waves-woa-0"


def shown(folder, *journal):
    """What must be equal between two runs: every trial, the finalists and the test score."""
    found = json.loads(tuner(folder, "show", STUDY, *journal, "--json"))
    for trial in found["all_trials"]:
        del trial["seconds"], trial["latency_ms"]
    del found["test"]["opened_at"]
    return found["all_trials"], found["finalists"], found["test"]


def test_a_restarted_server_changes_nothing_in_a_search(postgresql, tmp_path):
    for name in ("calm", "restarted"):
        (tmp_path / name).mkdir()
        write_series(tmp_path / name)
        (tmp_path / name / "waves.yaml").write_text(LONG)
    command = ("run", "waves.yaml", "--workers", "2", "--no-tracking")
    tuner(tmp_path / "calm", *command)
    rng = random.Random(0)
    with schema_of_its_own(postgresql.url) as url:
        process = start(tmp_path / "restarted", *command, "--journal", url)
        n_before = 0
        for _ in range(N_RESTARTS):
            while (n_now := n_ended(url)) <= n_before:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            n_before = n_now
            time.sleep(rng.random() * 0.3)
            postgresql.stop()
            time.sleep(rng.random())
            postgresql.start()
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert err == ""
        assert shown(tmp_path / "restarted", "--journal", url) == shown(tmp_path / "calm")


def n_ended(url):
    try:
        trials = read_study(read_journal(url), STUDY, url).trials
    except InputError:  # not begun
        return 0
    return sum(t.status is not Status.RUNNING for t in trials)
