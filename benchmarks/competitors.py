"""The searched LSTM of another package, AutoLSTM of neuralforecast, on the rows of `quality.py`.

It runs in an environment of its own, and imports nothing of ours:

    python benchmarks/peers/bench.py install --job small --peers auto_lstm
    python benchmarks/quality.py --write DATA --etth1 ETTh1.csv
    benchmarks/peers/.venv-neuralforecast/bin/python benchmarks/competitors.py DATA --json FILE

How fast it is beside ours is in `benchmarks/peers`.

Each set of DATA/sets.json is searched with as many trials as ours, each of `--steps` training
steps, by Optuna's TPE sampler on the validation rows. The best configuration is then trained again
on the training and validation rows, and forecasts every window of the test rows from the true rows
before it, as ours does: the model stays as it is, the history is updated at each step. The search
space is AutoLSTM's own, but for the length of its windows (`window_factors`) and for two keys that
it reads no more; the loss is the squared error, as the score is.

What was computed is kept in the JSON file, and not computed again: one line of it is a set, a seed,
a number of trials and one of steps.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

STEPS = 200  # of a trial; AutoLSTM itself chooses between 500 and 1,000
STEPS_OF_LONG = 100  # where windows are of a day or more: what a CPU can do
_SILENT = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="what quality.py --write wrote")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="kept results")
    parser.add_argument("--series", default="", metavar="NAMES", help="a,b; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--steps", type=int, help="of a trial; default: `windows_of`")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sets = json.loads((options.data / "sets.json").read_text())
    names = [name for name in options.series.split(",") if name] or [
        name for name, f in sets.items() if f["task"] == "forecast" and not f.get("rows_as")
    ]
    quieten()
    for seed in range(options.seeds):
        for name in names:
            rows = len((options.data / sets[name]["file"]).read_text().splitlines()) - 1
            steps, windows = windows_of(sets[name], rows)
            steps = options.steps or steps
            key = f"{name} seed {seed} trials {options.trials} steps {steps}"
            kept = read(options.json)
            if key in kept:
                continue
            result = search(options.data, sets[name], seed, options.trials, steps, windows)
            kept = read(options.json)  # another process may have written since
            kept[key] = {"set": name, "seed": seed, **result}
            write(options.json, kept)
            print(f"{key}: rmse {result['rmse']:.5g}  {result['seconds']:.0f} s", flush=True)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, kept: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(kept, indent=1))
    new.replace(path)


def quieten() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def window_factors(horizon: int) -> list[int]:
    """Return the windows' lengths to choose from, in horizons.

    AutoLSTM's own are -1, which stands for 3, 4, 16 and 64: 64 rows at a horizon of 1, which cost
    as much as all else and reach back further than ours, and 6,144 at one of 96.
    """
    if horizon == 1:
        return [-1, 4, 16, 32]
    return [-1, 1, 4] if horizon < 24 else [1, 4] if horizon < 96 else [1]


def windows_of(facts: dict[str, Any], rows: int) -> tuple[int, int]:
    """Return the steps of a trial and the windows of each.

    A step of AutoLSTM has 128 windows. Of a series that has hardly more it would be an epoch, so
    there it has 32, as a batch of ours may have, and the trial has half as many steps again.

    Args:
        facts: of the set.
        rows: of all its series.
    """
    if facts["horizon"] >= 24:
        return STEPS_OF_LONG, 128
    if rows - facts["validation_rows"] - facts["test_rows"] < 150:
        return STEPS * 3 // 2, 32
    return STEPS, 128


def search(
    folder: Path, facts: dict[str, Any], seed: int, trials: int, steps: int, windows_a_step: int
) -> dict[str, Any]:
    """Search one set with one seed, and return the scores on its test rows.

    Args:
        folder: where its file is.
        facts: of the set, as `sets.json` has them.
        seed: of the sampler.
        trials: configurations.
        steps: training steps of each.
        windows_a_step: how many are drawn for a step.
    """
    import numpy as np
    import optuna
    import pandas as pd
    import torch
    from neuralforecast import NeuralForecast
    from neuralforecast.auto import AutoLSTM
    from neuralforecast.losses.pytorch import MSE

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    frame = pd.read_csv(folder / facts["file"])
    horizon, id_, target = facts["horizon"], facts["id"], facts["target"]
    others = [c for c in facts["features"] if c != target]
    ids = frame[id_].astype(str) if id_ else pd.Series("all", index=frame.index)
    # Every series ends at the same time, so that the last rows of each are those of ours.
    table = pd.DataFrame({"unique_id": ids, "y": frame[target].astype(float)})
    table["ds"] = table.groupby("unique_id").cumcount()
    table["ds"] += table.groupby("unique_id").ds.transform("max").max() - table.groupby(
        "unique_id"
    ).ds.transform("max")
    table = table.assign(**{c: frame[c].astype(float) for c in others})

    unused = ("input_size_multiplier", "inference_input_size_multiplier", "context_size")
    space = {k: v for k, v in AutoLSTM.default_config.items() if k not in (*unused, "max_steps")}
    own = AutoLSTM._ray_config_to_optuna(space)

    def config(trial: Any) -> dict[str, Any]:
        chosen = own(trial) | {"max_steps": steps, "val_check_steps": steps, **_SILENT}
        lengths = [(f if f > 0 else 3) * horizon for f in window_factors(horizon)]
        chosen["windows_batch_size"] = windows_a_step
        chosen["input_size"] = trial.suggest_categorical("input_size", lengths)
        return chosen | ({"hist_exog_list": others} if others else {})

    began = time.perf_counter()
    auto = AutoLSTM(
        h=horizon,
        loss=MSE(),
        config=config,
        search_alg=optuna.samplers.TPESampler(seed=seed),
        num_samples=trials,
        backend="optuna",
        alias="AutoLSTM",
    )
    forecaster = NeuralForecast(models=[auto], freq=1)
    forecasts = forecaster.cross_validation(
        table,
        val_size=facts["validation_rows"],
        test_size=facts["test_rows"],
        n_windows=None,
        step_size=1,
    )
    truth, said = (forecasts[c].to_numpy(dtype=float) for c in ("y", "AutoLSTM"))
    errors = said - truth
    windows = len(errors) // horizon
    if windows != facts["test_windows"]:
        raise SystemExit(f"{facts['file']}: {windows} windows, not {facts['test_windows']}")
    study = forecaster.models[0].results
    best = dict(study.best_trial.params)
    return {
        "rmse": math.sqrt(float(np.mean(errors**2))),
        "mae": float(np.mean(np.abs(errors))),
        "smape": float(np.mean(2 * np.abs(errors) / (np.abs(said) + np.abs(truth) + 1e-12))),
        "windows": windows,
        "trials": trials,
        "steps": steps,
        "windows_a_step": windows_a_step,
        "seconds": round(time.perf_counter() - began, 1),
        "validation_loss": float(study.best_value),
        "configuration": best,
    }


if __name__ == "__main__":
    main()
