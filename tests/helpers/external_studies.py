"""External studies: a made-up objective, a plain run of it, and clients that misbehave."""

from __future__ import annotations

import contextlib
import random

import optuna

from tuner.coordination.ask_tell import AskTell
from tuner.coordination.coordinator import Coordinator, Limits
from tuner.coordination.leases import LeaseConflict
from tuner.coordination.pruning import make_pruner
from tuner.executors.base import Finished, Reported
from tuner.experiment import space_size
from tuner.experiment.external import ExternalSpec
from tuner.experiment.space import to_distributions
from tuner.jobs import Epoch, ExternalJob, Outcome, OutcomeState
from tuner.journal.records import read_trial
from tuner.journal.storage import write_journal
from tuner.strategies import STRATEGIES
from tuner.strategies.rng import training_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = {
    "x": {"type": "float", "low": -1.0, "high": 1.0},
    "rate": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
    "units": {"type": "int", "low": 1, "high": 9},
    "kind": {"type": "categorical", "choices": ["plain", "wide"]},
}
FEW = {"a": {"type": "int", "low": 1, "high": 3}, "b": {"type": "int", "low": 1, "high": 2}}
STEPS = 4
MEDIAN = {"name": "median", "n_startup_trials": 3, "n_warmup_steps": 1}


def make_spec(strategy="random", *, trials=14, size=4, **keys):
    kind = "batch" if "batch" in STRATEGIES[strategy].model_fields else "population"
    return ExternalSpec.from_dict(
        {
            "name": "s",
            "space": SPACE,
            "strategy": {"name": strategy, kind: size},
            "direction": "minimize",
            "seed": 3,
            "trials": trials,
            "retries": 1000,
            **keys,
        }
    )


def curve(params, seed):
    """The values of a training's steps; the last one is its result."""
    level = sum(v**2 if isinstance(v, int | float) else len(v) for v in params.values())
    return [level + 2 / (1 + step) + seed % 100 / 1000 for step in range(STEPS)]


def fails(seed):
    return seed % 11 == 0


def told(trials):
    """Everything about an external study that must not depend on its clients."""
    return [
        (
            t.number,
            dict(t.params),
            t.seed,
            t.status,
            t.value,
            t.repeat_of,
            t.outcome and [e.metric for e in t.outcome.history],
        )
        for t in trials
    ]


class InOrder:
    """An executor that does one job after the other, in this process."""

    def __init__(self, n_workers=1):
        self.n_workers, self._queue, self._go_on, self._step = n_workers, [], True, 0

    def submit(self, job):
        self._queue.append(job)

    def withdraw(self):
        return []

    def answer(self, key, go_on):
        self._go_on = go_on

    def poll(self, timeout_s):
        job, step = self._queue[0], self._step
        values = curve(job.params, job.seed)
        if self._go_on and step < STEPS and not (fails(job.seed) and step == 1):
            self._step += 1
            return [Reported(job.key, Epoch(step, 0.0, 0.0, values[step], 0.0))]
        if not self._go_on:
            outcome = Outcome(OutcomeState.PRUNED)
        elif fails(job.seed):
            outcome = Outcome(OutcomeState.FAILED, reason="it failed")
        else:
            outcome = Outcome(OutcomeState.COMPLETE, objective=values[-1])
        self._queue.pop(0)
        self._go_on, self._step = True, 0
        return [Finished(job.key, outcome)]


def run_plainly(spec, path):
    """Run a study as a local search is run, without leases; return its trials."""
    with write_journal(str(path)) as storage:
        study = optuna.create_study(study_name="s", storage=storage, direction=spec.direction)
        distributions = to_distributions(spec.space)
        study.sampler = spec.strategy.make_sampler(distributions, spec.seed, spec.trials)

        def make_job(trial):
            seed = training_seed(spec.seed, "trial", trial.number)
            prunes = spec.pruner.name != "none"
            name = f"trial {trial.number}"
            return ExternalJob(name, trial._trial_id, trial.number, trial.params, seed, prunes)

        Coordinator(
            study,
            distributions,
            spec.strategy.rhythm,
            InOrder(),
            make_job,
            Limits(spec.trials, n_configurations=space_size(spec.space), retries=spec.retries),
            distinct=spec.distinct,
            pruner=make_pruner(spec.pruner, spec.steps or 1, by_loss=False),
            seed=spec.seed,
        ).run()
        trials = []
        for frozen in study.get_trials(deepcopy=False):
            trials.append(read_trial(frozen, spec, trials))
        return told(trials)


class Clock:
    """A clock that goes on by hand."""

    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


class Chaos:
    """Clients that report in any order, vanish and come back, and a service that dies.

    Args:
        spec: of the study.
        path: of its journal.
        seed: of the events.
        unrest: how likely a client vanishes or gives its trial back, instead of going on.
    """

    def __init__(self, spec, path, seed, unrest=0.1):
        self.spec, self.path, self.clock, self.unrest = spec, path, Clock(), unrest
        self.rng = random.Random(seed)
        self.held = []  # leases, with the number of reported steps and the last answer
        self.vanished = []
        self.n_given, self.n_kills = 0, 0

    def run(self):
        """Run the study to its end, and return its trials."""
        for _ in range(10_000):
            with write_journal(str(self.path)) as storage:
                study = AskTell(storage, str(self.path), "s", self.spec, clock=self.clock)
                while self.rng.random() > 0.03:
                    self._anything(study)
                    if study.progress.done:
                        return told(study.record.trials)
            self.n_kills += 1
            with self.path.open("ab") as file:  # it died while it wrote
                file.write(b'{"op_code": 8, "wor'[: self.rng.randrange(19)])
        raise AssertionError("it does not end")

    def _anything(self, study):
        self.clock.now += self.rng.random() * 10
        what = self.rng.random()
        if not self.held or what < 0.3:
            leases = study.ask(f"client {self.rng.randrange(5)}", self.rng.randint(1, 3))
            self.n_given += len(leases)
            self.held += [[lease, 0, False] for lease in leases]
            if not leases and not self.held:
                self.clock.now += self.spec.lease_s  # the others have vanished
            return
        index = self.rng.randrange(len(self.held))
        held = self.held[index]
        if what < 0.3 + self.unrest:
            del self.held[index]
            self.vanished.append(held)
        elif what < 0.3 + 1.5 * self.unrest:
            with contextlib.suppress(LeaseConflict):
                study.release(held[0].number, held[0].id)
            del self.held[index]
        else:
            self._go_on(study, held)
        if self.vanished and self.rng.random() < 0.1:  # one comes back, late
            self.held.append(self.vanished.pop(self.rng.randrange(len(self.vanished))))

    def _go_on(self, study, held):
        lease, n_steps, prune = held
        values = curve(lease.params, lease.seed)
        n_most = 1 if fails(lease.seed) else STEPS
        try:
            if not prune and n_steps < n_most:
                first = max(0, n_steps - self.rng.randint(0, 1))  # a step may come twice
                last = min(n_most, n_steps + self.rng.randint(1, 2))
                answer = study.report(lease.number, lease.id, first, values[first:last])
                held[1:] = [last, answer.prune]
                return
            for _ in range(self.rng.randint(1, 2)):
                if prune:
                    study.tell(lease.number, lease.id, pruned=True)
                elif fails(lease.seed):
                    study.tell(lease.number, lease.id, failed="it failed")
                else:
                    study.tell(lease.number, lease.id, values[-1])
        except LeaseConflict:
            pass
        self.held.remove(held)
