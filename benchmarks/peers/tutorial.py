"""The tutorial way: Optuna's TPE around `trainer.train`, and log_metric to MLflow every epoch.

Variants:
    two      two processes with one journal storage, each with half of the trials and one thread:
             what Optuna's documentation advises for several processes on one machine
    single   one process, the study in memory, torch's own number of threads: the usual way
    pruned   as `two`, with Optuna's median pruner asked after every epoch
    journal  as `single`, the study in a journal, each epoch reported to it, nothing in MLflow

In job `overhead` an epoch trains nothing, and there is one process.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import Job, answer, arguments, read_windows

PACKAGES = ("optuna", "mlflow", "torch")
STORE = "sqlite:///mlflow.db"  # in the current folder, as MLflow has it by default
VARIANTS = ("two", "single", "pruned", "journal")


def main() -> None:
    job, options = arguments(__doc__, *VARIANTS)
    shared = options.variant in ("two", "pruned") and job.name != "overhead"
    part, other = options.part or 0, None
    if shared and options.part is None:  # the second terminal
        other = subprocess.Popen([sys.executable, *sys.argv, "--part", "1"])
    begun = time.perf_counter()
    study, seconds = search(job, options, shared, part)
    if part:
        return
    if other is not None and other.wait():
        raise SystemExit("the second process failed")
    from optuna.trial import TrialState

    trials = [t for t in study.trials if t.datetime_complete is not None]
    complete = [t for t in trials if t.state is TrialState.COMPLETE]  # a pruned one has a value too
    ended = [(t.datetime_complete.timestamp(), t.value) for t in complete]
    epochs = sum(t.user_attrs.get("epochs", 0) for t in trials)
    steps = 0
    if job.name != "overhead":
        steps = epochs * math.ceil(len(read_windows(job, options.file).x) / job.batch_size)
    answer(
        ended,
        PACKAGES,
        trials=len(trials),
        steps=steps,
        search_s=seconds,
        imports_s=time.perf_counter() - begun - seconds,
    )


def search(job: Job, options: Any, shared: bool, part: int) -> tuple[Any, float]:
    """Run the trials of this process; return the study and the seconds of the search."""
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if shared:
        torch.set_num_threads(1)
    storage = None
    if shared or options.variant == "journal":
        backend = optuna.storages.journal.JournalFileBackend("optuna.log")
        storage = optuna.storages.JournalStorage(backend)
    pruner = optuna.pruners.MedianPruner() if options.variant == "pruned" else None
    tracks = options.variant != "journal"
    if tracks:
        open_experiment()
    objective = make_objective(job, options, tracks)
    begun = time.perf_counter()
    study = optuna.create_study(
        study_name="peers",
        storage=storage,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=options.seed + 1000 * part),
        pruner=pruner or optuna.pruners.NopPruner(),
    )
    if job.start and part == 0:  # trained by the process that is ready first
        study.enqueue_trial(dict(job.start))
    n_trials = job.trials
    if shared:  # half each; the first process has the odd one
        n_trials = (job.trials + 1) // 2 if part == 0 else job.trials // 2
    study.optimize(objective, n_trials=n_trials)
    return study, time.perf_counter() - begun


def open_experiment() -> None:
    """Select MLflow's experiment, which another process may be creating at the same time."""
    import mlflow

    mlflow.set_tracking_uri(STORE)
    try:
        mlflow.set_experiment("peers")
    except mlflow.exceptions.MlflowException:
        mlflow.set_experiment("peers")


def make_objective(job: Job, options: Any, tracks: bool) -> Callable[[Any], float]:
    """Return what Optuna calls for a trial."""
    if job.name == "overhead":
        return idle_objective(job, tracks)
    import mlflow
    import optuna
    from trainer import train

    windows = read_windows(job, Path(options.file))

    def objective(trial: optuna.Trial) -> float:
        parameters = suggest(job, trial)

        def log(epoch: int, loss: float, score: float) -> None:
            mlflow.log_metric("train_loss", loss, step=epoch)
            mlflow.log_metric("val_rmse", score, step=epoch)
            if options.variant == "pruned":
                trial.report(score, epoch)
                if trial.should_prune():
                    trial.set_user_attr("epochs", epoch + 1)
                    raise optuna.TrialPruned

        with mlflow.start_run(run_name=f"trial {trial.number}"):
            mlflow.log_params(trial.params)
            score = train(job, windows, parameters, options.seed + trial.number, log)
            mlflow.log_metric("score", score)
        trial.set_user_attr("epochs", job.epochs)
        return score

    return objective


def suggest(job: Job, trial: Any) -> dict[str, float | int]:
    """Return the parameters of a trial of Optuna."""
    return {
        name: trial.suggest_int(name, int(r.low), int(r.high), log=r.log)
        if r.whole
        else trial.suggest_float(name, r.low, r.high, log=r.log)
        for name, r in job.space.items()
    }


def idle_objective(job: Job, tracks: bool) -> Callable[[Any], float]:
    """Return an objective whose epochs train nothing, and are recorded in MLflow or the study."""
    if tracks:
        import mlflow

    def objective(trial: Any) -> float:
        x = suggest(job, trial)["x"]
        if not tracks:
            for epoch in range(job.epochs):
                trial.report(x + math.exp(-epoch), epoch)
            return x
        with mlflow.start_run(run_name=f"trial {trial.number}"):
            mlflow.log_params(trial.params)
            for epoch in range(job.epochs):
                mlflow.log_metric("train_loss", math.exp(-epoch), step=epoch)
                mlflow.log_metric("val_rmse", x + math.exp(-epoch), step=epoch)
            mlflow.log_metric("score", x)
        return x

    return objective


if __name__ == "__main__":
    main()
