"""`tuner report`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from tuner.cli.display import console
from tuner.cli.inspect import read
from tuner.errors import InputError
from tuner.report import page

__all__ = ["report"]


def report(study: str, output: Path, journal: str | None, force: bool) -> None:
    """Write the report of a study as one HTML page."""
    record = read(study, journal)
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"-o: must be a file in an existing folder, got {output}; create it first")
    if output.exists() and not force and not page.is_report(output):
        raise InputError(f"-o: {output} exists and is no report; write elsewhere, or add --force")
    output.write_text(page.report(record), encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(output))}[/]", soft_wrap=True)
