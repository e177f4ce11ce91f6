"""How good forecasts are: `tuner init` and `tuner run` on real data, beside what is plain.

    python benchmarks/quality.py --etth1 ETTh1.csv --folder DIR --json quality.json

For every set of `real_series.SETS` and every seed the commands that a person would type are run
in a folder, with nothing edited by hand; what came of it is read from `tuner show --json`. The
test set is evaluated once by each search. What was computed is kept in the JSON file and not
computed again, so that sets can be run one at a time; the table shows all that was asked for.
docs/quality.md says how it is made, and shows it.

    --write DIR         writes the sets' files alone, for `benchmarks/competitors.py`
    --competitors FILE  its results, a column of the table
    --speed             how long an epoch takes with segments and without, and nothing else
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_series import EXPERIMENTS, SETS, MissingError, RealSet, Sources, write_sets

LEVEL = 0.8  # of the intervals
COVERS = (0.74, 0.86)  # what is as good as 0.8
GREATER_IS_BETTER = ("accuracy", "f1", "auroc", "r2")
COLUMNS = ("set", "windows", "metric", "ours", "ensemble", "default", "strongest plain", "AutoLSTM")
COLUMNS += ("ours / plain", "0.8 covers")
PLAIN_COLUMNS = ("set", "metric")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog="Sets: " + ", ".join(SETS)
    )
    parser.add_argument("--series", default="", metavar="NAMES", help="a,b; default: all")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="0 to N - 1")
    parser.add_argument(
        "--trials", type=int, default=30, help="of a search; shipped ones keep theirs"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--etth1", type=Path, metavar="PATH", help="ETTh1.csv")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="where packages' files lie")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="kept; default: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results, kept and read")
    parser.add_argument("--competitors", type=Path, metavar="FILE", help="of competitors.py")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the files alone")
    parser.add_argument("--table", action="store_true", help="run nothing, show what is kept")
    parser.add_argument("--speed", action="store_true", help="seconds an epoch, and nothing else")
    options = parser.parse_args()
    names = options.series.split(",") if options.series else list(SETS)
    if unknown := [name for name in names if name not in SETS]:
        parser.error(f"--series: no set {unknown[0]}; there are {', '.join(SETS)}")
    sources = Sources(options.packages, options.etth1)
    if options.write is not None:
        write_all(options.write, names, sources)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if options.speed:
            speed(folder, sources)
            return
        kept = read(options.json)
        if not options.table:
            names = write_all(folder / "data", names, sources)
            # All sets with a seed before the next seed, so that what is there is of every set.
            for seed in range(options.seeds):
                for name in names:
                    key = key_of(name, seed, options.trials)
                    if key not in kept:
                        kept[key] = search(folder, name, seed, options.trials, options.workers)
                        write(options.json, kept)
                        print(f"{key}: {kept[key]['sentence']}", file=sys.stderr, flush=True)
    rows = rows_of(names, kept, read(options.competitors), options.seeds, options.trials)
    print(table(rows), *summary(rows), "", plain_table(rows), sep="\n")


def key_of(name: str, seed: int, trials: int) -> str:
    return f"{name} seed {seed} trials {'as shipped' if SETS[name].shipped else trials}"


def read(path: Path | None) -> dict[str, Any]:
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def write(path: Path | None, kept: Mapping[str, Any]) -> None:
    if path is not None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(kept, indent=1))
        new.replace(path)


def write_all(folder: Path, names: Sequence[str], sources: Sources) -> list[str]:
    """Write the sets' files; return those that could be, and say of the others what is missing."""
    written = []
    for name in names:
        try:
            write_sets(folder, [name], sources)
            written.append(name)
        except MissingError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return written


def search(folder: Path, name: str, seed: int, trials: int, workers: int) -> dict[str, Any]:
    """Search a set as a person would, and return what came of it.

    Raises:
        SystemExit: a command failed; it said why.
    """
    of, study = SETS[name], f"{name}-{seed}"
    experiment = folder / f"{name}.yaml"
    if not of.shipped and not experiment.exists():
        tuner(folder, "init", f"data/{of.file(name)}", "-o", experiment.name, *init_arguments(of))
    file = str(EXPERIMENTS / of.shipped) if of.shipped else experiment.name
    budget = [] if of.shipped else ["--trials", str(trials)]
    tuner(
        folder,
        *("run", file, "--study", study, "--seed", str(seed), "--workers", str(workers)),
        *("--no-tracking", *budget, *settings(of)),
    )
    return result_of(json.loads(tuner(folder, "show", study, "--json")))


def init_arguments(of: RealSet) -> list[str]:
    """Return what `tuner init` cannot guess: what is asked, and what tells series apart."""
    arguments = ["--target", of.target]
    if of.id is not None:
        arguments += ["--id", of.id]
    if of.horizon > 1:
        arguments += ["--horizon", str(of.horizon)]
    if of.task != "forecast":
        arguments += ["--task", of.task]
    return [*arguments, *of.init]


def settings(of: RealSet) -> list[str]:
    """Return the protocol: where others cut the rows, and that intervals are measured."""
    chosen = []
    if of.task == "forecast":
        chosen.append(f"task.intervals=[{LEVEL}]")
    if isinstance(of.validation, int):
        chosen += [f"data.split.validation={of.validation}", f"data.split.test={of.test}"]
    return [part for setting in chosen for part in ("--set", setting)]


def tuner(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    ended = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(
            f"tuner {' '.join(arguments)}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}"
        )
    return ended.stdout


def result_of(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table needs of `tuner show --json`: scores of the test part.

    Where the winner was refitted they are those of the refitted models, and of the default and
    the plain predictions that knew as much.
    """
    test = shown["test"]
    if test is None:
        raise SystemExit(f"{shown['study']}: the test part was not opened")
    refit = test.get("refit") or {}
    of = test if not refit or "failed" in refit else test | refit
    return {
        "metric": test["metric"],
        "trials": shown["trials"]["trained"],
        "windows": test["rows"],
        "single": of["mean"],
        "scores": of["scores"],
        "ensemble": of.get("ensemble"),
        "default": (of.get("default") or {}).get("mean"),
        "baselines": {k: v for k, v in of["baselines"].items() if v is not None},
        "without_refit": {key: test.get(key) for key in ("mean", "ensemble", "baselines")},
        "validation": (shown["best"] or {}).get("mean"),
        "coverage": coverage_of(of),
        "configuration": (shown["best"] or {}).get("hyperparameters"),
        "sentence": shown["verdict"],
    }


def coverage_of(test: Mapping[str, Any]) -> float | None:
    """Return which share of the test rows the intervals of `LEVEL` cover; None without any."""
    for interval in test.get("intervals") or ():
        if math.isclose(interval["level"], LEVEL):
            return interval["coverage"]
    return None


def rows_of(
    names: Sequence[str],
    kept: Mapping[str, Any],
    competitors: Mapping[str, Any],
    seeds: int,
    trials: int,
) -> list[dict[str, Any]]:
    """Return a row for each set: medians over the seeds that there are."""
    rows = []
    for name in names:
        keys = [key_of(name, seed, trials) for seed in range(seeds)]
        found = [kept[key] for key in keys if key in kept]
        other = SETS[name].rows_as or name
        rivals = [r for r in competitors.values() if r["set"] == other and r["seed"] < seeds]
        if not found and not rivals:
            continue
        metric = found[0]["metric"] if found else "rmse"
        plain = {
            baseline: median([f["baselines"].get(baseline) for f in found])
            for baseline in (found[0]["baselines"] if found else ())
        }
        best = max if metric in GREATER_IS_BETTER else min
        known = {k: v for k, v in plain.items() if v is not None}
        strongest = best(known, key=lambda k: known[k]) if known else None
        rows.append(
            {
                "set": name,
                "seeds": len(found),
                "windows": found[0]["windows"] if found else rivals[0]["windows"],
                "metric": metric,
                **{k: median([f[k] for f in found]) for k in ("single", "ensemble", "default")},
                "coverage": median([f["coverage"] for f in found]),
                "baselines": plain,
                "strongest": strongest,
                "rival": median([r.get(metric) for r in rivals]),
                "rival_seeds": len(rivals),
            }
        )
    return rows


def median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(row: Mapping[str, Any], against: float | None, key: str = "single") -> float | None:
    """Return ours over another's error, so that below one is better; of accuracies the errors'."""
    own = row[key]
    if own is None or against is None:
        return None
    if row["metric"] in GREATER_IS_BETTER:
        own, against = 1 - own, 1 - against
    return own / against if against else None if own else 1.0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        strongest = row["strongest"]
        plain = "-" if strongest is None else f"{number(row['baselines'][strongest])} {strongest}"
        strong = None if strongest is None else row["baselines"][strongest]
        rival, own = number(row["rival"]), number(row["single"])
        lines.append(
            [
                row["set"],
                f"{row['windows']:,}",
                row["metric"],
                own if row["seeds"] in (0, 3) else f"{own} ({row['seeds']})",
                number(row["ensemble"]),
                number(row["default"]),
                plain.replace("_", " "),
                rival if row["rival_seeds"] in (0, 3) else f"{rival} ({row['rival_seeds']})",
                number(ratio(row, strong), 3),
                number(row["coverage"], 2),
            ]
        )
    return markdown(COLUMNS, lines)


def plain_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the score of every plain prediction."""
    names = list(dict.fromkeys(name for row in rows for name in row["baselines"]))
    lines = [
        [row["set"], row["metric"], *(number(row["baselines"].get(name)) for name in names)]
        for row in rows
        if row["baselines"]
    ]
    return markdown((*PLAIN_COLUMNS, *(n.replace("_", " ") for n in names)), lines) if lines else ""


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---" if i == 0 else "---:" for i in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines))


def number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentences that say whether what is to be reached is."""
    sentences = [""]
    judged = [r for r in rows if r["single"] is not None and SETS[r["set"]].shipped is None]
    forecasts = [r for r in judged if SETS[r["set"]].task == "forecast"]
    for key in ("single", "ensemble"):
        plain = {
            r["set"]: ratio(r, r["baselines"][r["strongest"]], key)
            for r in forecasts
            if r["strongest"] and r[key] is not None
        }
        known = {name: value for name, value in plain.items() if value is not None}
        if known:
            worst = max(known, key=lambda name: known[name])
            better = sum(value < 1 for value in known.values())
            sentences.append(
                f"{key}: better than every baseline on {better} of {len(known)} series; "
                f"at worst {known[worst]:.3f} times the best one ({worst})."
            )
        rivals = {r["set"]: ratio(r, r["rival"], key) for r in forecasts if r[key] is not None}
        beaten = [name for name, value in rivals.items() if value is not None and value < 1]
        lost = [name for name, value in rivals.items() if value is not None and value >= 1]
        if beaten or lost:
            but = f", not on {', '.join(lost)}" if lost else ""
            of = len(beaten) + len(lost)
            sentences.append(f"{key}: better than AutoLSTM on {len(beaten)} of {of} series{but}.")
    for row in rows:
        if row["set"] == "etth1_seven" and row["single"] is not None:
            both = [f"{row[key] ** 2:.3f}" if row[key] else "-" for key in ("single", "ensemble")]
            sentences.append(
                f"etth1_seven, MSE of what is scaled: {both[0]}, ensemble {both[1]} "
                f"(published: DLinear 0.375, SegRNN 0.341 to 0.368)."
            )
    covered = {r["set"]: r["coverage"] for r in rows if r["coverage"] is not None}
    if covered:
        out = {n: c for n, c in covered.items() if not COVERS[0] <= round(c, 2) <= COVERS[1]}
        but = "; not " + ", ".join(f"{n} ({c:.2f})" for n, c in out.items()) if out else ""
        sentences.append(
            f"Intervals of {LEVEL} cover {COVERS[0]} to {COVERS[1]} of the test rows on "
            f"{len(covered) - len(out)} of {len(covered)} series{but}."
        )
    return sentences


def speed(folder: Path, sources: Sources) -> None:
    """Print the seconds of an epoch on ETTh1's oil temperature, window 96, horizon 96."""
    write_sets(folder / "data", ["etth1_ot"], sources)
    seconds = {}
    for segment in (1, 24):
        study = f"segment-{segment}"
        experiment = {
            "name": study,
            "data": {
                "path": "data/etth1_ot.csv",
                "time": "date",
                "target": "OT",
                "split": {"validation": 2880, "test": 2880},
            },
            "task": {"kind": "forecast", "window": 96, "horizon": 96},
            "hyperparameters": {"segment": segment, "hidden_size": 64, "batch_size": 64},
            "search_space": {"dropout": {"type": "categorical", "choices": [0.0]}},
            "strategy": {"name": "brute"},
            "budget": {"epochs": 4},
            "finalists": {"top": 0},
        }
        (folder / f"{study}.yaml").write_text(json.dumps(experiment))
        run = ["run", f"{study}.yaml", "--study", study, "--workers", "1", "--no-tracking"]
        tuner(folder, *run, "--no-test")
        (trial,) = json.loads(tuner(folder, "show", study, "--json"))["all_trials"]
        seconds[segment] = trial["seconds"] / trial["epochs"]
        print(f"segment {segment:2d}: {seconds[segment]:.2f} s an epoch")
    print(f"{seconds[1] / seconds[24]:.1f} times faster (target 8)")


if __name__ == "__main__":
    main()
