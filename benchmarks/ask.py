"""What a swarm takes to be asked for one trial, with 100 and with 10,000 trials in the study.

Beside it random search, which looks at no trial: what it takes is Optuna's own share, and that of
the storage. A database is left out: filling it takes minutes.

    python benchmarks/ask.py [--asks 40]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "uvwxyz"}
FEW, MANY = 100, 10_000
SAMPLERS: dict[str, BaseSampler] = {
    "random": RandomSampler(seed=0),
    "pso": ParticleSwarmSampler(seed=0),
    "pso, candidates": ParticleSwarmSampler(candidates=60, seed=0),
    "pso, ring": ParticleSwarmSampler(topology="ring", seed=0),
    "qpso": QuantumSwarmSampler(seed=0),
    "woa": WhaleSampler(seed=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--asks", type=int, default=40, help="asks that a figure is the mean of")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    print(f"{'ms an ask':24}{f'at {FEW}':>10}{f'at {MANY}':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory(prefix="ask-") as folder:
        for kind in ("memory", "journal"):
            studies = [filled(new_storage(kind, folder, n), n) for n in (FEW, MANY)]
            for name, sampler in SAMPLERS.items():
                few, many = (ask_ms(study, sampler, args.asks) for study in studies)
                print(f"{kind + ', ' + name:24}{few:10.2f}{many:10.2f}{many / few:8.2f}")


def new_storage(kind: str, folder: str, n_trials: int) -> BaseStorage:
    if kind == "memory":
        return InMemoryStorage()
    return JournalStorage(JournalFileBackend(str(Path(folder) / f"{n_trials}.log")))


def filled(storage: BaseStorage, n_trials: int) -> optuna.Study:
    """Return a study of that many trials."""
    rng = np.random.default_rng(0)
    study = optuna.create_study(storage=storage)
    study.add_trials(
        optuna.create_trial(
            params=dict(zip(SPACE, rng.random(len(SPACE)).tolist(), strict=True)),
            distributions=SPACE,
            value=float(rng.random()),
        )
        for _ in range(n_trials)
    )
    return study


def ask_ms(study: optuna.Study, sampler: BaseSampler, n_asks: int) -> float:
    """Return the milliseconds that an ask takes, once the trials have been read."""
    study.sampler = sampler
    study.tell(study.ask(SPACE), 1.0)
    seconds = 0.0
    for k in range(n_asks):
        before = time.perf_counter()
        trial = study.ask(SPACE)
        seconds += time.perf_counter() - before
        study.tell(trial, float(k))
    return 1000 * seconds / n_asks


if __name__ == "__main__":
    main()
