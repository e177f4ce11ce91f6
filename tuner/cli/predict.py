"""`tuner predict`: its arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Force

__all__ = ["predict"]


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="What train -o or export --model wrote.")
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA.csv", help="A CSV or Parquet file like the training's.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file. \\[default: the terminal]")
    ] = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Forecast from every row on, not only after the last one."),
    ] = False,
    future: Annotated[
        Path | None,
        typer.Option(
            "--future",
            metavar="FILE",
            help="Rows to come, with the columns that are known ahead. \\[default: DATA's last]",
        ),
    ] = None,
    numpy: Annotated[
        bool, typer.Option("--numpy", help="Run the model in numpy, without onnxruntime.")
    ] = False,
    force: Force = False,
) -> None:
    """Predict with a trained model, as CSV; this needs no torch."""
    from tuner.cli import predicting as command

    command.predict(model, data, output, all_, force, future, numpy)
