"""Two objectives at once: the front that `nsga2` finds, beside that of Optuna's own NSGA-II.

Both search a recorded landscape for the least RMSE and the fewest weights, with nothing but the
sampler and Optuna. The figure is the hypervolume between the front and the landscape's worst
values, as a share of what the landscape's own front has; weights count by their logarithm.

    python benchmarks/front.py [--trials 60] [--seeds 40]
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from pydantic import TypeAdapter
from regret import LANDSCAPES, be_quiet_and_alone
from ruamel.yaml import YAML
from simulated import Landscape

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.space import SearchSpace, to_distributions
from tuner.strategies.codec import values_of
from tuner.strategies.optuna_strategies import Nsga2Strategy
from tuner.training.model import Model

HERE = Path(__file__).resolve().parent
POPULATION = 10
Point = tuple[float, float]  # RMSE, and the logarithm of the weights


def samplers(
    space: dict[str, BaseDistribution], trials: int
) -> dict[str, Callable[[int], BaseSampler]]:
    """Return what makes each sampler from a seed, by its name in the table."""
    ours = Nsga2Strategy(population=POPULATION)
    return {
        "`nsga2`": lambda seed: ours.make_sampler(space, seed, trials),
        f"Optuna's, population {POPULATION}": lambda seed: NSGAIISampler(
            population_size=POPULATION, seed=seed
        ),
        "Optuna's, its default of 50": lambda seed: NSGAIISampler(seed=seed),
        "random": lambda seed: RandomSampler(seed),
    }


@functools.cache
def n_weights(hidden_size: int, num_layers: int) -> int:
    """Count what a model learns."""
    parameters = Hyperparameters(hidden_size=hidden_size, num_layers=num_layers)
    return sum(p.numel() for p in Model(parameters, Shape("forecast", 1)).parameters())


def point(landscape: Landscape, params: dict) -> Point:
    """Return both objectives of a configuration: of its first recorded training."""
    rmse = min(landscape.recordings(params)[0].curve)
    return rmse, math.log10(n_weights(params["hidden_size"], params["num_layers"]))


def hypervolume(points: Iterable[Point], worst: Point) -> float:
    """Return the area that the points beat, as far as the worst of both."""
    area, least = 0.0, worst[1]
    for rmse, weights in sorted(points):
        if weights < least:
            area += (worst[0] - rmse) * (least - weights)
            least = weights
    return area


def search(sampler: BaseSampler, landscape: Landscape, space: dict, trials: int) -> list[Point]:
    """Return both objectives of every trial."""
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    found = []
    for _ in range(trials):
        trial = study.ask(space)
        found.append(point(landscape, trial.params))
        study.tell(trial, found[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=40)
    options = parser.parse_args()
    be_quiet_and_alone()
    raw = YAML(typ="safe").load(HERE.parent / "search_spaces" / "lstm_grid.yaml")
    space = to_distributions(TypeAdapter(SearchSpace).validate_python(raw))
    shares: dict[str, list[list[float]]] = {}
    for name in LANDSCAPES:
        landscape = Landscape.load(HERE / "landscapes" / f"{name}.parquet")
        grid = np.meshgrid(*[np.array(values_of(d), object) for d in space.values()])
        every = [
            dict(zip(space, row, strict=True))
            for row in zip(*(g.ravel() for g in grid), strict=True)
        ]
        points = [point(landscape, params) for params in every]
        worst = max(p[0] for p in points), max(p[1] for p in points)
        whole = hypervolume(points, worst)
        for who, make in samplers(space, options.trials).items():
            found = [
                hypervolume(search(make(seed), landscape, space, options.trials), worst) / whole
                for seed in range(options.seeds)
            ]
            shares.setdefault(who, []).append(found)
    print(f"| after {options.trials} trials | {' | '.join(LANDSCAPES)} |")
    print(f"|---|{'---|' * len(LANDSCAPES)}")
    for who, of in shares.items():
        cells = [
            f"{np.median(s):.4f} ({np.quantile(s, 0.25):.4f} to {np.quantile(s, 0.75):.4f})"
            for s in of
        ]
        print(f"| {who} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
