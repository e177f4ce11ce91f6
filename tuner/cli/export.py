"""`tuner export`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rich.markup import escape

from tuner.cli.display import console
from tuner.cli.inspect import read
from tuner.errors import InputError, TunerError, nearest
from tuner.experiment import Experiment
from tuner.results.export import exported, render

__all__ = ["export"]


def export(
    study: str, output: Path | None, format_: str | None, journal: str | None, force: bool
) -> None:
    """Write the best configuration of a study as an experiment file."""
    if format_ is not None and format_ not in ("yaml", "json"):
        raise InputError(
            f"--format: unknown format {format_!r}{nearest(format_, ['yaml', 'json'])}"
        )
    as_json = format_ == "json" or (
        format_ is None and output is not None and output.suffix == ".json"
    )
    record = read(study, journal)
    if output is None:
        sys.stdout.write(render(exported(record, Path.cwd(), "best.yaml"), as_json))
        return
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"-o: must be a file in an existing folder, got {output}; create it first")
    if output.exists() and not force and not _is_export(output):
        raise InputError(f"-o: {output} exists and is no export; write elsewhere, or add --force")
    text = render(exported(record, output.parent, output.name), as_json)
    output.write_text(text, encoding="utf-8")
    path = escape(shlex.quote(str(output)))
    console.print(f"wrote [bold]{escape(str(output))}[/]; next: [bold]tuner train {path}[/]")


def _is_export(path: Path) -> bool:
    try:
        return Experiment.load(path).recorded is not None
    except TunerError:
        return False
