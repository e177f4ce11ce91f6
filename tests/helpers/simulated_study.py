"""A whole search but for the training: what a model comes to is a function of its job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from helpers.search_bench import told
from helpers.simulated_executor import SimulatedExecutor
from tuner.coordination.coordinator import Observer
from tuner.executors.base import Finished
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState, PredictJob, members_of
from tuner.journal.records import read_study
from tuner.journal.storage import read_journal
from tuner.orchestrator import SearchOptions, search

# The default, of 32 units, is not in the space.
SPACE = {
    "hidden_size": {"type": "int", "low": 40, "high": 128, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
}

START = {"hidden_size": 128, "dropout": 0.5}  # so that a search finds better ones for long


class PretendExecutor(SimulatedExecutor):
    """Trains nothing; a model predicts the truth, off by as much as its curve came to.

    The default has the best of all configurations; `default_off` is how much worse its trainings
    are than that.
    """

    def __init__(self, n_workers, *args, default_off=5.0, **keys):
        super().__init__(n_workers, *args, **keys)
        self._default_off = default_off
        self._jobs, self._predictions = {}, []

    def submit(self, job):
        if isinstance(job, PredictJob):
            truth = job.data.truth_of(job.data.evaluate_samples())
            off = np.mean([weights["off"] for weights in (job.weights, *job.others)])
            outcome = Outcome(OutcomeState.COMPLETE, predictions=truth + off)
            self._predictions.append(Finished(job.key, outcome))
        else:
            self._jobs |= {each.key: each for each in members_of(job)}
            super().submit(job)

    def poll(self, timeout_s):
        if self._predictions:
            return [self._predictions.pop()]
        events = super().poll(timeout_s)
        return [self._with_weights(e) if isinstance(e, Finished) else e for e in events]

    def curve(self, job):
        off = self._default_off if job.key.startswith("baseline") else 0.0
        return [value + off for value in super().curve(job)]

    def _with_weights(self, event):
        job = self._jobs[event.key]
        if not job.keep_weights:
            return event
        weights = {"off": np.array(min(self.curve(job)))}
        return Finished(event.key, dataclasses.replace(event.outcome, weights=weights))


class Notes(Observer):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


class Winners(Observer):
    """Keeps what a search reports of its winner's model."""

    def __init__(self, use=lambda model: model):
        self._use, self.found = use, []

    def on_winner(self, model):
        self.found.append(self._use(model))


_T = np.arange(90)
WAVES = "y\n" + "".join(f"{float(v)!r}\n" for v in 10 + 3 * np.sin(_T / 2) + _T % 5)
"""A file of one series."""


SHORT = {
    "budget": {"trials": 6, "epochs": 2},
    "finalists": {"top": 1, "repeats": 2, "refit": False},
}
"""Changes of `waves_experiment`, for few trials."""


def waves_experiment(path, **changes):
    """An experiment on `WAVES`, as nested dicts."""
    return {
        "name": "waves",
        "data": {"path": path, "target": "y", "split": {"validation": 15, "test": 12}},
        "task": {"window": 6, "season": 5},
        "search_space": SPACE,
        "hyperparameters": START,
        "strategy": {"name": "random", "batch": 4},
        "budget": {"trials": 8, "epochs": 3},
        "pruner": {"name": "none"},
        "finalists": {"top": 2, "repeats": 3, "refit": False},
        **changes,
    }


class Case:
    """One study in a folder of its own, run as often as one likes."""

    def __init__(self, folder: Path):
        folder.mkdir()
        (folder / "waves.csv").write_text(WAVES)
        self.folder, self.location = folder, str(folder / "s.journal")
        self.executor, self.notes = None, Notes()

    def experiment(self, trials=8, space=SPACE, **keys):
        path = str(self.folder / "waves.csv")
        own = {
            "search_space": space,
            "hyperparameters": keys.pop("hyperparameters", START if space is SPACE else {}),
            "budget": {"trials": trials, "epochs": 3} | keys.pop("budget", {}),
            "finalists": {"top": 2, "repeats": 3, "refit": False} | keys.pop("finalists", {}),
        }
        return Experiment.model_validate(waves_experiment(path, **own, **keys))

    def run(self, trials=8, *, executor=None, stages=None, observers=(), stop=None, **keys):
        self.executor, self.notes = executor or PretendExecutor(2), Notes()
        return search(
            self.experiment(trials, **keys),
            SearchOptions("s", self.location, **(stages or {})),
            [self.notes, *observers],
            make_executor=lambda n_workers: self.executor,
            stop=stop,
        )

    def read(self):
        return read_study(read_journal(self.location), "s", self.location)


def everything(record):
    """All of a study that must not depend on timing."""
    retrained = [
        (r.role, r.configuration, r.repeat, r.seed, dict(r.params), r.value)
        for r in record.finalists
    ]
    openings = [{k: v for k, v in o.raw.items() if k != "opened_at"} for o in record.openings]
    return told(record), retrained, json.loads(json.dumps(openings))
