"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tuner.errors import InputError

__all__ = [
    "AsJson",
    "Experiment",
    "Force",
    "Journal",
    "Set",
    "Strategy",
    "Study",
    "study_name",
    "whole",
]


def whole(option: str, example: int) -> Callable[[str | int], int]:
    """Return what reads an option's whole number; `example` stands in its errors."""

    def parse(text: str | int) -> int:
        try:
            return int(text)
        except ValueError:
            problem = f"{option}: must be a whole number, got {text!r}; write {option} {example}"
            raise InputError(problem) from None

    return parse


def study_name(text: str) -> str:
    """Return a study's name; of the path of a journal in studies/, the study that it is of."""
    path = Path(text)
    if path.suffix == ".journal" and path.absolute().parent == Path("studies").absolute():
        return path.stem
    return text


Experiment = Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment file.")]
Study = Annotated[str, typer.Argument(metavar="STUDY", parser=study_name, help="The study's name.")]
Journal = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A file, sqlite:///FILE or postgresql+psycopg://... "
        "\\[default: studies/STUDY.journal]",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Use this one's defaults instead; tuner strategies lists them."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key: budget.epochs=50. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite any file.")]
