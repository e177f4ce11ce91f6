"""The same jobs for `tuner run`: the experiment file, the command, and what its journal says.

Tracking is on, as it is by default. Finalists, the untuned default and the test set are left out,
as no peer has them; baselines are computed. In `small` and `large` nothing stops a trial early; in
`quality` pruning and early stopping are as they are by default, and the search goes on for as long
as it is told to. `segments` reads a day as one step, as `tuner init` proposes for such a window.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs import Job

STUDY = "ours"
WORKERS = 2
POPULATION = 20
OVERHEAD = Path(__file__).resolve().parent.parent / "overhead.py"


class NothingFound(Exception):
    """No trial of a run ended, or MLflow lacks some."""


def experiment(job: Job, file: Path, strategy: str, seed: int, segment: int = 1) -> dict[str, Any]:
    """Return the experiment of a job.

    Args:
        job: what is searched.
        file: its rows, as `write_rows` writes them.
        strategy: its name; a swarm has `POPULATION` individuals, or half of the trials.
        seed: of everything random.
        segment: rows that are read as one step.
    """
    block: dict[str, Any] = {"name": strategy}
    if strategy in ("pso", "qpso", "woa"):
        block["population"] = max(2, min(POPULATION, job.trials // 2))
    made: dict[str, Any] = {
        "name": "peers",
        "data": {
            "path": str(file),
            "time": job.time,
            "target": job.columns[0] if len(job.columns) == 1 else list(job.columns),
            "features": list(job.columns),
            "split": {"validation": job.validation, "test": job.test},
        },
        "task": {"kind": "forecast", "window": job.window, "horizon": job.horizon},
        "hyperparameters": {**job.fixed, "batch_size": job.batch_size, "segment": segment},
        "search_space": {name: domain(r) for name, r in job.space.items()},
        "strategy": block,
        "budget": {"trials": job.trials, "epochs": job.epochs},
        "objective": {"metric": "rmse"},
        "finalists": {"top": 0, "baseline": False},
        "seed": seed,
    }
    if job.name == "quality":
        made["budget"]["trials"] = None
    else:
        made["budget"]["patience"] = job.epochs
        made["pruner"] = {"name": "none"}
    return made


def domain(r: Any) -> dict[str, Any]:
    """Return a range as an experiment has it."""
    numbers = (
        {"low": int(r.low), "high": int(r.high)} if r.whole else {"low": r.low, "high": r.high}
    )
    return {"type": "int" if r.whole else "float", **numbers, "log": r.log}


def command(
    job: Job, folder: Path, file: Path, variant: str, seed: int, timeout_s: float | None = None
) -> list[str]:
    """Return the command of a job, having written its experiment into a folder.

    Args:
        job: what is searched.
        folder: where it will run.
        file: its rows.
        variant: a strategy; in `overhead` `journal` or `mlflow`; in `large` maybe `segments`.
        seed: of everything random.
        timeout_s: when the search starts no further trial; needed in `quality`.
    """
    if job.name == "overhead":
        tracks = [] if variant == "mlflow" else ["--no-tracking"]
        ran = [sys.executable, str(OVERHEAD), "--one", "tpe", "--narrow"]
        return [*ran, "--trials", str(job.trials), *tracks]
    strategy, segment = ("tpe", 24) if variant == "segments" else (variant, 1)
    # JSON is YAML.
    written = json.dumps(experiment(job, file, strategy, seed, segment), indent=1)
    (folder / "ours.yaml").write_text(written)
    ran = [sys.executable, "-m", "tuner", "run", "ours.yaml", "--study", STUDY, "--no-test"]
    ran += ["--workers", str(WORKERS)]
    if timeout_s is not None:
        ran += ["--timeout", f"{max(1, round(timeout_s))}s"]
    return ran


def result(job: Job, folder: Path, said: str, began: float) -> dict[str, Any]:
    """Return what a run found, as `jobs.answer` has it.

    `parts` says where the wall time went: `start` until the first training began, `trials` until
    the last one ended, `end` is the rest; `training` is the time of all trainings. `together` is
    how many trials a worker trains at once, on average, and `at_once` how many jobs the generation
    with the fewest has: with fewer than there are workers, some of them idle.

    Args:
        job: what was searched.
        folder: where it ran.
        said: its standard output.
        began: when the command was started, in seconds since 1970.

    Raises:
        NothingFound: no trial ended, or the copy in MLflow was not complete at the end.
    """
    if job.name == "overhead":
        found = json.loads(said.splitlines()[-1])
        if not found["copied"]:
            raise NothingFound("MLflow lacks trials")
        return {"trials": found["trials"], "search_s": found["search_s"], "steps": 0, "curve": []}
    from tuner.journal.records import read_study
    from tuner.journal.storage import read_journal

    location = str(folder / "studies" / f"{STUDY}.journal")
    trained = read_study(read_journal(location), STUDY, location).trained
    outcomes = [trial.outcome for trial in trained if trial.outcome is not None]
    if not outcomes:
        raise NothingFound("no trial ended")
    if (copied := copied_trials(folder / "mlflow.db")) < len(outcomes):
        raise NothingFound(f"MLflow has {copied} of {len(outcomes)} trials")
    points = sorted(
        (o.finished_at - began, o.objective) for o in outcomes if o.objective is not None
    )
    first = first_begin(trained) - began
    last = max(o.finished_at for o in outcomes) - began
    epochs = sum(len(o.history) for o in outcomes)
    rows = len((folder / "rows.csv").read_text().splitlines()) - 1
    return {
        "score": min((score for _, score in points), default=None),
        "curve": [[round(at, 3), score] for at, score in points],
        "versions": versions(),
        "trials": len(outcomes),
        "steps": epochs * job.steps(rows) // job.epochs,
        "parts": {
            "start": first,
            "trials": last - first,
            "training": sum(o.seconds for o in outcomes),
            "median_trial": statistics.median(o.seconds for o in outcomes),
        },
        **spread(trained),
    }


def copied_trials(store: Path) -> int:
    """Return how many trials have ended in a database of MLflow, which also has the study's run."""
    with contextlib.closing(sqlite3.connect(store)) as database:
        (ended,) = database.execute(
            "SELECT count(*) FROM runs WHERE end_time IS NOT NULL"
        ).fetchone()
    return int(ended) - 1


def jobs_of(trials: Iterable[Any]) -> dict[tuple[int, ...], list[Any]]:
    """Return the trials that a worker trained together, or the one that it trained alone."""
    jobs: dict[tuple[int, ...], list[Any]] = {}
    for trial in trials:
        jobs.setdefault(trial.group or (trial.number,), []).append(trial)
    return jobs


def first_begin(trials: Iterable[Any]) -> float:
    """Return when the first training began, in seconds since 1970.

    The seconds of a trial are its share of those of its group, so a group began as much before its
    last member's end as all of its members took.
    """
    return min(
        max(t.outcome.finished_at for t in members) - sum(t.outcome.seconds for t in members)
        for members in jobs_of(trials).values()
    )


def spread(trials: Iterable[Any]) -> dict[str, Any]:
    """Return how many trials a worker trains at once, and the fewest jobs of a generation.

    The latter is None for a strategy without generations.
    """
    jobs = jobs_of(trials)
    generations: dict[int, int] = {}
    for members in jobs.values():
        if (generation := members[0].generation) is not None:
            generations[generation] = generations.get(generation, 0) + 1
    together = statistics.fmean(map(len, jobs.values()))
    return {"together": together, "at_once": min(generations.values(), default=None)}


def versions() -> dict[str, str]:
    """Return the versions of what ours stands on."""
    from importlib.metadata import version

    import tuner

    return {"tuner": tuner.__version__, "torch": version("torch"), "optuna": version("optuna")}
