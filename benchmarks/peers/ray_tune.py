"""Ray Tune: OptunaSearch, MLflowLoggerCallback, one trial a core, around the tutorial's training.

Every epoch is reported to Tune. Ray's own loggers (JSON, CSV, TensorBoard where it is installed)
are as they are by default.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from jobs import Job, answer, arguments, next_number, read_windows

CORES = 2


def main() -> None:
    job, options = arguments(__doc__)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers import the modules beside this one.
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    import optuna
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path.cwd()
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="error")
    begun = time.perf_counter()
    trainable = idle if job.name == "overhead" else trains
    file = None if options.file is None else options.file.resolve()
    tuner = tune.Tuner(
        tune.with_parameters(trainable, job=job, file=file, seed=options.seed),
        param_space={name: domain(tune, r) for name, r in job.space.items()},
        tune_config=tune.TuneConfig(
            metric="best",
            mode="min",
            num_samples=job.trials,
            max_concurrent_trials=CORES,
            search_alg=OptunaSearch(
                sampler=optuna.samplers.TPESampler(seed=options.seed),
                points_to_evaluate=[dict(job.start)] if job.start else None,
            ),
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "ray_results"),
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="peers"
                )
            ],
        ),
    )
    results = tuner.fit()
    seconds = time.perf_counter() - begun
    if results.errors:
        raise SystemExit(f"{results.num_errors} trials failed: {results.errors[0]}")
    metrics = [result.metrics for result in results]
    steps = 0
    if job.name != "overhead":
        per_epoch = math.ceil(len(read_windows(job, options.file).x) / job.batch_size)
        steps = per_epoch * sum(each["training_iteration"] for each in metrics)
    ray.shutdown()
    answer(
        [(each["timestamp"], each["best"]) for each in metrics],
        ("ray", "optuna", "mlflow", "torch"),
        trials=len(metrics),
        steps=steps,
        search_s=seconds,
    )


def domain(tune: Any, r: Any) -> Any:
    """Return a range as Tune has it."""
    if r.whole:
        return tune.lograndint(int(r.low), int(r.high) + 1)
    return tune.loguniform(r.low, r.high) if r.log else tune.uniform(r.low, r.high)


def trains(config: dict[str, float], job: Job, file: Path, seed: int) -> None:
    """Train one configuration in a worker of Ray."""
    import torch
    from ray import tune
    from trainer import train

    torch.set_num_threads(1)
    best = math.inf

    def log(epoch: int, loss: float, score: float) -> None:
        nonlocal best
        best = min(best, score)
        tune.report({"train_loss": loss, "val_rmse": score, "best": best})

    train(job, read_windows(job, file), config, seed + next_number(file.parent), log)


def idle(config: dict[str, float], job: Job, file: None, seed: int) -> None:
    """Report epochs that train nothing."""
    from ray import tune

    for epoch in range(job.epochs):
        tune.report({"train_loss": math.exp(-epoch), "best": config["x"]})


if __name__ == "__main__":
    main()
