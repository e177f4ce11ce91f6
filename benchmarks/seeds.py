"""How many seeds it takes until `tuner compare` tells strategies apart: a table.

Every strategy searches a landscape (recorded training, see record_landscapes.py) on many seeds.
Comparisons are drawn from these searches: some seeds, the same for all strategies, and what is
said of them. `false alarms` are comparisons in which random search is compared with itself, on
other seeds, as often as there are strategies.

    python benchmarks/seeds.py [--searches 200] [--draws 300] [--landscape air_passengers]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from regret import LANDSCAPES, ROOT, be_quiet_and_alone
from rich.progress import track
from simulated import Landscape, SimulatedExecutor

from tuner.experiment import Experiment, Override
from tuner.orchestrator import SearchOptions, search
from tuner.results.differences import ALPHA, StrategyDifference, pairwise

STRATEGIES = ("random", "tpe", "pso", "woa")
BASELINE = "random"
SEEDS = (5, 10, 20, 40)
N_TRIALS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--landscape", choices=LANDSCAPES, default=LANDSCAPES[0])
    parser.add_argument("--trials", type=int, default=N_TRIALS)
    options = parser.parse_args()
    tasks = [
        (options.landscape, strategy, seed, options.trials)
        for seed in range(options.searches)
        for strategy in STRATEGIES
    ]
    with multiprocessing.Pool(initializer=be_quiet_and_alone) as pool:
        found = list(track(pool.imap(best_score, tasks), "searches", total=len(tasks)))
    scores = np.array(found).reshape(options.searches, len(STRATEGIES)).T  # (strategies, searches)
    for d in pairwise(dict(zip(STRATEGIES, scores.tolist(), strict=True))):
        print(f"{d.better} wins {d.wins:.2f} of the pairs against {d.worse}")
    rng = np.random.default_rng(0)
    others = [name for name in STRATEGIES if name != BASELINE]
    print(f"\n| seeds | {' | '.join(f'`{name}` over `{BASELINE}`' for name in others)} | two alone "
          f"| false alarms |")  # fmt: skip
    print("| --- " * (len(others) + 3) + "|")
    for n in SEEDS:
        if n * len(STRATEGIES) <= options.searches:
            cells = row(scores, n, options.draws, rng)
            print(f"| {n} | {' | '.join(f'{100 * cell:.0f} %' for cell in cells)} |")


def row(scores: np.ndarray, n: int, n_draws: int, rng: np.random.Generator) -> list[float]:
    """Return in which share of comparisons on `n` seeds which difference is found."""
    found: Counter[str] = Counter()
    for _ in range(n_draws):
        seeds = rng.permutation(scores.shape[1])
        drawn = dict(zip(STRATEGIES, scores[:, seeds[:n]].tolist(), strict=True))
        found.update(d.better for d in real(drawn) if d.worse == BASELINE)
        two = {name: drawn[name] for name in STRATEGIES[:2]}
        found["two alone"] += any(d.worse == BASELINE for d in real(two))
        of_baseline = scores[STRATEGIES.index(BASELINE)]
        parts = np.split(of_baseline[seeds[: n * len(STRATEGIES)]], len(STRATEGIES))
        found["false alarm"] += bool(real({str(i): p.tolist() for i, p in enumerate(parts)}))
    names = [name for name in STRATEGIES if name != BASELINE]
    return [found[what] / n_draws for what in (*names, "two alone", "false alarm")]


def real(scores: dict[str, list[float]]) -> list[StrategyDifference]:
    return [d for d in pairwise(scores) if d.p_adjusted <= ALPHA]


def best_score(task: tuple[str, str, int, int]) -> float:
    """Search as `tuner compare` does, with recorded training; return the best validation score."""
    landscape, strategy, seed, n_trials = task
    overrides = {
        "search_space": str(ROOT / "search_spaces" / "lstm_grid.yaml"),
        "strategy": {"name": strategy},
        "budget.trials": n_trials,
        "pruner": {"name": "none"},
        "seed": seed,
    }
    experiment = Experiment.load(
        ROOT / "experiments" / f"{landscape}.yaml",
        [Override(key, value, "BENCHMARK") for key, value in overrides.items()],
    )
    recorded = Landscape.load(ROOT / "benchmarks" / "landscapes" / f"{landscape}.parquet")
    with tempfile.TemporaryDirectory() as folder:
        record = search(
            experiment,
            SearchOptions(journal=str(Path(folder) / "s.journal"), finalists=False),
            make_executor=lambda n_workers: SimulatedExecutor(recorded, n_workers),
        )
    assert record.best is not None
    assert record.best.value is not None
    return record.best.value


if __name__ == "__main__":
    main()
