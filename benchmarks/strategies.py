"""How far from the best each strategy is, after how many trials: tables and pictures.

Two kinds of problems: landscapes (every configuration of a finite space, recorded by
record_landscapes.py; searched through the coordinator, repeats not counted as trials; by one of
them no default was chosen) and test functions in six dimensions (searched by the sampler alone).
Medians and quartiles over seeds.

    regret     of the best configuration trained, as the mean over the recorded seeds, over the
               landscape's best such mean
    winner     the same of the configuration that the search itself holds for the best, judging
               by one training each; the difference is what finalists are for
    over tpe   how much more regret than tpe has, by median and mean, each with the 95 % interval of
               a bootstrap that draws seeds, on which both searched
    error      of the best evaluation, over the function's least value

    python benchmarks/strategies.py [--seeds 100] [--strategies pso tpe] [--only landscapes]

`gp` takes ten seconds and more a search: ten seeds at most, and landscapes only. Pictures go to
docs/images/. With --keep FILE results are added to those which FILE holds from before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from functions import FUNCTIONS
from regret import (
    BUDGETS,
    FRESH,
    LANDSCAPES,
    N_EVALUATIONS,
    NAMES,
    ROOT,
    SEQUENTIAL_TPE,
    VARIANTS,
    Task,
    be_quiet_and_alone,
    is_swarm,
    run,
    takes_floats,
)
from rich.progress import track

ALL = (*LANDSCAPES, *FRESH)
KINDS = ("landscapes", "functions", "places")
PLACES = ("anywhere", "mirrored", "centre", "quarter", "three quarters")
N_DRAWS = 5_000  # of a bootstrap
SLOW = {"gp": 10}  # seeds at most, and landscapes only

Results = dict[str, dict[str, list[list[float]]]]
"""By Task.group and quantity: a row for each seed, a column for each trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--strategies", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--keep", type=Path, metavar="FILE")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    be_quiet_and_alone()

    started = time.perf_counter()
    results = run_all(list(tasks(options.strategies, options.only, options.seeds)), options.workers)
    print(f"\n{time.perf_counter() - started:.0f} s on {options.workers} cores\n")
    if options.keep:
        if options.keep.exists():
            results = json.loads(options.keep.read_text()) | results
        options.keep.write_text(json.dumps(results))
    print_all(results)
    from pictures import draw_all

    for path in draw_all(results, options.images):
        print(f"wrote {path}")


def tasks(strategies: Sequence[str], kinds: Sequence[str], n_seeds: int) -> list[Task]:
    """Return every search, the slow ones first."""
    found = []
    for name in sorted(strategies, key=lambda name: name not in SLOW):
        seeds = range(min(n_seeds, SLOW.get(name, n_seeds)))
        searches: list[tuple[str, str, int]] = []
        if "landscapes" in kinds:
            searches += [(problem, "-", budget) for problem in ALL for budget in BUDGETS]
        if name not in SLOW and name not in VARIANTS and takes_floats(name):
            if "functions" in kinds:
                searches += [(problem, "anywhere", N_EVALUATIONS) for problem in FUNCTIONS]
            if "places" in kinds and (is_swarm(name) or name == "random"):
                searches += [("sphere", place, N_EVALUATIONS) for place in PLACES]
        found += [Task(name, *search, seed) for search in dict.fromkeys(searches) for seed in seeds]
    return found


def run_all(tasks: list[Task], n_workers: int) -> Results:
    rows: dict[str, dict[int, dict[str, list[float]]]] = {}
    seconds: dict[str, float] = {}
    with multiprocessing.Pool(n_workers, initializer=start_worker) as pool:
        ended = pool.imap_unordered(timed, tasks, chunksize=4)
        for task, result, took in track(ended, "searches", total=len(tasks)):
            rows.setdefault(task.group, {})[task.seed] = result
            seconds[task.strategy] = seconds.get(task.strategy, 0) + took
    print("seconds by strategy:", {name: round(s) for name, s in sorted(seconds.items())})
    return {
        group: {
            quantity: [seeds[seed][quantity] for seed in sorted(seeds)]
            for quantity in next(iter(seeds.values()))
        }
        for group, seeds in rows.items()
    }


def start_worker() -> None:
    warnings.simplefilter("ignore")
    be_quiet_and_alone()


def timed(task: Task) -> tuple[Task, dict[str, list[float]], float]:
    started = time.perf_counter()
    _, result = run(task)
    return task, result, time.perf_counter() - started


def print_all(results: Results) -> None:
    """Print what there are results of, as Markdown."""
    strategies = list(dict.fromkeys(group.partition("|")[0] for group in results))
    strategies.sort(key=NAMES.index)
    for problem in ALL:
        head = [f"{what}, {b} trials" for b in BUDGETS for what in ("regret", "winner")]
        rows = []
        for name in strategies:
            groups = [results.get(f"{name}|{problem}|-|{b}") for b in BUDGETS]
            cells = [summary(g, what) for g in groups for what in ("regret", "winner")]
            last = groups[-1]
            n_proposed = np.median([p[-1] for p in last["proposals"]]) if last else np.nan
            rows.append([f"`{name}`", *cells, f"{n_proposed:.0f}"])
        print_table(f"Landscape {problem}", ["strategy", *head, "proposals for 100"], rows)
    compare_with_tpe(results, strategies)
    print_differences(results, strategies)
    rows = [
        [f"`{name}`", *(summary(results.get(group(name, f))) for f in FUNCTIONS)]
        for name in strategies
    ]
    print_table(f"Error after {N_EVALUATIONS} evaluations", ["strategy", *FUNCTIONS], rows)
    rows = [
        [f"`{name}`", *(summary(results.get(group(name, "sphere", p))) for p in PLACES)]
        for name in strategies
        if group(name, "sphere", "centre") in results
    ]
    print_table("Sphere, by the optimum's place", ["strategy", *PLACES], rows)
    for name in strategies:
        both = [results.get(group(name, "sphere", p)) for p in ("anywhere", "mirrored")]
        if all(both):
            from scipy.stats import mannwhitneyu

            ends = [[row[-1] for row in each["regret"]] for each in both if each]
            print(f"{name}: reflecting the space, p = {mannwhitneyu(*ends).pvalue:.2f}")


def group(strategy: str, function: str, place: str = "anywhere") -> str:
    return Task(strategy, function, place, N_EVALUATIONS, 0).group


def summary(result: dict[str, list[list[float]]] | None, quantity: str = "regret") -> str:
    """Return median and quartiles over the seeds after the last trial."""
    if result is None:
        return "-"
    low, median, high = np.percentile([row[-1] for row in result[quantity]], [25, 50, 75])
    return f"{short(median)} ({short(low)} to {short(high)})"


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def compare_with_tpe(results: Results, strategies: Sequence[str]) -> None:
    """Print whether some swarm's median regret is no higher than that of either TPE."""
    for problem in ALL:
        for budget in BUDGETS:
            for quantity in ("regret", "winner"):
                medians = {
                    name: float(np.median([row[-1] for row in result[quantity]]))
                    for name in strategies
                    if (result := results.get(f"{name}|{problem}|-|{budget}"))
                }
                swarms = {name: m for name, m in medians.items() if is_swarm(name)}
                for tpe in ("tpe", SEQUENTIAL_TPE):
                    if tpe in medians and swarms:
                        best = min(swarms, key=lambda name: swarms[name])
                        verdict = "yes" if swarms[best] <= medians[tpe] else "NO"
                        print(
                            f"{problem}, {budget} trials, {quantity}: {best} {swarms[best]:.3g}, "
                            f"{tpe} {medians[tpe]:.3g}: {verdict}"
                        )
    print()


def print_differences(results: Results, strategies: Sequence[str]) -> None:
    """Print how much more regret than tpe the strategies have, and how sure that is."""
    for problem in ALL:
        rows = []
        for name in strategies:
            cells = []
            for budget in BUDGETS:
                found = [results.get(f"{n}|{problem}|-|{budget}") for n in (name, "tpe")]
                ends = [[row[-1] for row in each["regret"]] for each in found if each]
                n_seeds = min(map(len, ends), default=0)
                for statistic in (np.median, np.mean):
                    same = [np.array(each[:n_seeds]) for each in ends]
                    cells.append(difference(*same, statistic) if len(same) == 2 else "-")
            if name != "tpe":
                rows.append([f"`{name}`", *cells])
        head = [f"{what}, {b} trials" for b in BUDGETS for what in ("median", "mean")]
        print_table(f"Landscape {problem}, over tpe", ["strategy", *head], rows)


def difference(own: np.ndarray, other: np.ndarray, statistic: Any) -> str:
    """Return the difference of a statistic of the seeds, and its 95 % interval."""
    drawn = np.random.default_rng(0).integers(len(own), size=(N_DRAWS, len(own)))
    over = statistic(own[drawn], axis=1) - statistic(other[drawn], axis=1)
    low, high = np.percentile(over, [2.5, 97.5])
    return f"{statistic(own) - statistic(other):.2g} ({low:.2g} to {high:.2g})"


def print_table(title: str, head: Sequence[str], rows: list[list[str]]) -> None:
    rows = [row for row in rows if set(row[1:]) - {"-", "nan"}]
    if rows:
        print(f"{title}\n")
        for row in (head, ["---"] * len(head), *rows):
            print("| " + " | ".join(row) + " |")
        print()


if __name__ == "__main__":
    main()
