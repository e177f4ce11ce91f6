"""`tuner report`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.markup import escape

from tuner.launching.finding import read
from tuner.outputs import check_file, written_whole
from tuner.report import page
from tuner.watching.display import console

__all__ = ["report"]


def report(study: str, output: Path | None, journal: str | None, force: bool) -> None:
    """Write the report of a study as one HTML page."""
    record = read(study, journal)
    output = output or Path(f"{record.name}.html")  # two studies of a folder have two pages
    of_it = None if force else partial(page.is_report, study=record.name)
    check_file(output, f"report of {record.name}", page.ENDINGS, of_it)
    with written_whole(output) as new:
        new.write_text(page.report(record), encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(output))}[/]", soft_wrap=True)
