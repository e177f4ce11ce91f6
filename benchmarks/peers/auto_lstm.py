"""AutoLSTM of neuralforecast, with Optuna as its backend, at the steps of the job.

One process, as this backend has no other, with torch's own number of threads; nothing goes to
MLflow; the validation rows are scored every 100 steps, its default, instead of every epoch. A step
has as many windows as a batch of the others. What it does not share with them: the levels and
scales of its windows, a small network as decoder, and the first configuration, which its sampler
draws. After the search it trains the best configuration once more, and that counts as a trial.
"""

from __future__ import annotations

import csv
import logging
import math
import time
import warnings
from typing import Any

from jobs import CLIP, answer, arguments

_TRAINER = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "gradient_clip_val": CLIP,
}


def main() -> None:
    job, options = arguments(__doc__)
    warnings.filterwarnings("ignore")
    import optuna
    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.auto import AutoLSTM
    from neuralforecast.losses.pytorch import MSE

    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with options.file.open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    rows = len(lines) - job.test  # the test rows are not read
    if len(job.columns) != 1:
        raise SystemExit("AutoLSTM forecasts one column of a series")
    values = [float(line[job.columns[0]]) for line in lines[:rows]]
    table = pd.DataFrame({"unique_id": "all", "ds": range(rows), "y": values})
    steps = job.steps(len(lines))

    def config(trial: Any) -> dict[str, Any]:
        width, dropout, rate = (job.space[k] for k in ("hidden_size", "dropout", "learning_rate"))
        return {
            **_TRAINER,
            "max_steps": steps,
            "input_size": job.window,
            "windows_batch_size": job.batch_size,
            "encoder_n_layers": 1,
            "encoder_hidden_size": trial.suggest_int(
                "hidden_size", int(width.low), int(width.high), log=True
            ),
            "encoder_dropout": trial.suggest_float("dropout", dropout.low, dropout.high),
            "learning_rate": trial.suggest_float("learning_rate", rate.low, rate.high, log=True),
            # It is called once before the search, with a trial that has no number.
            "random_seed": options.seed + getattr(trial, "number", 0),
        }

    auto = AutoLSTM(
        h=job.horizon,
        loss=MSE(),
        config=config,
        search_alg=optuna.samplers.TPESampler(seed=options.seed),
        num_samples=job.trials,
        backend="optuna",
        refit_with_val=False,
    )
    begun = time.perf_counter()
    forecaster = NeuralForecast(models=[auto], freq=1)
    forecaster.fit(table, val_size=job.validation)
    trials = [t for t in forecaster.models[0].results.trials if t.value is not None]
    trainings = len(trials) + 1  # the best configuration once more
    answer(
        [(t.datetime_complete.timestamp(), math.sqrt(t.value)) for t in trials],
        ("neuralforecast", "optuna", "torch"),
        trials=trainings,
        steps=steps * trainings,
        search_s=time.perf_counter() - begun,
    )


if __name__ == "__main__":
    main()
