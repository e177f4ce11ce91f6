"""`tuner compare`: its arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import (
    AllowCode,
    Events,
    Executor,
    Experiment,
    Force,
    Journal,
    Set,
    Tracking,
    Trials,
    Workers,
    whole,
)

__all__ = ["compare"]


def compare(
    experiment: Experiment,
    strategies: Annotated[
        str, typer.Option(metavar="A,B", help="Which ones; tuner strategies lists them.")
    ] = "random,tpe,pso,woa",
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole("--seeds", 5),
            help="Searches of each: on the experiment's seed and the ones after it.",
        ),
    ] = 5,
    trials: Trials = None,
    workers: Workers = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Where page, picture and tables go. \\[default: EXPERIMENT-comparison]",
        ),
    ] = None,
    journal: Journal = None,
    executor: Executor = "local",
    tracking: Tracking = True,
    set_: Set = None,
    force: Force = False,
    json: Events = False,
    allow_code: AllowCode = False,
) -> None:
    """Compare strategies: a search of each on several seeds, and which differences are real."""
    from tuner.cli import comparing

    comparing.compare(
        experiment,
        strategies=strategies,
        n_seeds=seeds,
        trials=trials,
        workers=workers,
        journal=journal,
        executor=executor,
        tracking=tracking,
        set_=set_ or [],
        output=output,
        force=force,
        as_json=json,
    )
