"""`tuner report`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from tuner.cli.display import console
from tuner.cli.inspect import read
from tuner.outputs import check_file, written_whole
from tuner.report import page

__all__ = ["report"]


def report(study: str, output: Path, journal: str | None, force: bool) -> None:
    """Write the report of a study as one HTML page."""
    record = read(study, journal)
    check_file(output, "report", page.ENDINGS, None if force else page.is_report)
    with written_whole(output) as new:
        new.write_text(page.report(record), encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(output))}[/]", soft_wrap=True)
