"""`tuner compare`: its arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Experiment, Force, Journal, Set, whole

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
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole("--trials", 40),
            help="Configurations that each trains.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole("--workers", 2),
            help="Trials at a time. \\[default: one per core]",
        ),
    ] = None,
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
    executor: Annotated[
        str, typer.Option(metavar="NAME", help="local, ray or ray://HOST:PORT: where trials run.")
    ] = "local",
    tracking: Annotated[
        bool, typer.Option("--tracking/--no-tracking", help="Copy the trials to MLflow.")
    ] = True,
    set_: Set = None,
    force: Force = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print what happens as JSON, an object a line.")
    ] = False,
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
