"""`tuner sync` and `tuner ui`: their arguments and options."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.cli.options import Ensemble, Journal, Register, Study, study_name, whole

__all__ = ["sync", "ui"]


def sync(
    study: Study,
    journal: Journal = None,
    register: Register = None,
    ensemble: Ensemble = False,
) -> None:
    """Make MLflow agree with a study's journal."""
    from tuner.cli import tracking as command

    command.sync(study, journal, register, ensemble=ensemble)


def ui(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", parser=study_name, help="Open at this study's trials."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", parser=whole("--port", 5000), help="\\[default: its usual one]"),
    ] = None,
    journal: Journal = None,
) -> None:
    """Start the MLflow UI on this folder's trials; Ctrl-C ends it."""
    from tuner.cli import tracking as command

    command.ui(study, port, journal)
