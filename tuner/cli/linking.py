"""A study's links into MLflow's UI, as `tuner show` prints them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from tuner.coordination.finalists import trial_name
from tuner.launching.typed import journal_option
from tuner.tracking import StudyLinks, find_links, has_study
from tuner.watching.display import console

if TYPE_CHECKING:
    from tuner.coordination.records import StudyRecord

__all__ = ["links_as_json", "show_links"]


def links_as_json(record: StudyRecord) -> dict[str, Any] | None:
    """Return a study's links as JSON; None where no UI that has it answers."""
    links = find_links(record)
    if links is None:
        return None
    numbers = {trial_name(trial.number): trial.number for trial in record.trials}
    best = [
        {"trial": numbers.get(name), "name": name, "link": link}
        for name, link in links.best.items()
    ]
    return {
        "study": links.study,
        "report": links.report,
        "trials": links.trials,
        "best": best,
    }


def show_links(record: StudyRecord, journal: str | None) -> None:
    """Print a study's links, or the command that serves them; nothing where MLflow lacks it."""
    links = find_links(record)
    if links is not None:
        _print(links)
    elif has_study(record):
        command = f"tuner ui {shlex.quote(record.name)}{journal_option(journal)}"
        console.print(f"\nIn MLflow: [bold]{escape(command)}[/]")


def _print(links: StudyLinks) -> None:
    lines = {"study": links.study, "report": links.report, "trials": links.trials}
    lines |= links.best
    lines = {what: link for what, link in lines.items() if link is not None}
    width = max(map(len, lines))
    console.print("\n[bold]In MLflow[/]")
    for what, link in lines.items():
        console.print(f"  {what:{width}}  {link}", markup=False, soft_wrap=True)
