"""`tuner show` and `export` of an external study, whose models train elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from rich import box
from rich.markup import escape
from rich.table import Table

from tuner.cli.app import Export
from tuner.errors import InputError
from tuner.outputs import check_file, written_whole
from tuner.progress.display import console, number, params_line
from tuner.progress.reporters import to_json
from tuner.results.export import ENDINGS

if TYPE_CHECKING:
    from tuner.client import ExternalStudy, RemoteStudy

_SHOWN = 10  # trials


def is_external(study: RemoteStudy) -> TypeGuard[ExternalStudy]:
    """Return whether the models of a service's study train elsewhere."""
    from tuner.client import ExternalStudy  # with requests

    return isinstance(study, ExternalStudy)


def show_external(study: ExternalStudy, *, as_json: bool) -> None:
    """Print the state of an external study, its best trial, and the next best ones.

    Args:
        study: of a service.
        as_json: whether to print what the service lists of the study, and all trials.
    """
    facts = study.facts()
    if as_json:
        print_json(facts | {"all_trials": study.rows()})
        return
    of = "" if facts["trials"] is None else f" of {facts['trials']}"
    stands = f"external, {facts['state']}: {facts['trained']}{of} trials told"
    console.print(f"\n[bold]{escape(study.name)}[/] is {escape(stands)}", soft_wrap=True)
    for why in (facts["error"], facts["exhausted"], facts["waits"]):
        if why is not None:
            console.print(f"  {why}", markup=False, soft_wrap=True)
    if (best := facts["best"]) is None:
        return
    so_far = "" if facts["state"] == "done" else " so far"
    console.print(f"\n[bold]Best configuration{so_far}[/] (trial {best['trial']})")
    console.print(f"  [green]{escape(params_line(best['params']))}[/]", soft_wrap=True)
    console.print(f"  {facts['metric']} {number(best['score'])}", markup=False)
    table = Table(title="Best trials", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("trial", facts["metric"], "steps", "seconds"):
        table.add_column(escape(heading), justify="right")
    table.add_column("configuration")
    for row in study.rows(most=_SHOWN):
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        cells = str(row["number"]), number(row["value"]), str(row["epochs"]), seconds
        table.add_row(*cells, escape(params_line(row["params"])))
    console.print()
    console.print(table)


def export_external(study: ExternalStudy, command: Export, *, as_json: bool) -> None:
    """Write the best trial of an external study, its score and its parameters.

    Raises:
        InputError: an option is about a model, or the file exists.
        RefusedError: no trial is complete.
    """
    given = {"--model": command.model, "--data": command.data, "--trial": command.trial}
    for option, value in given.items():
        if value is not None:
            rule = f"study {study.name!r} is external: its models train elsewhere"
            raise InputError(rule, where=option, remedy="leave it out")
    output = command.output
    if output is not None:
        of_it = None if command.force else _is_none
        check_file(output, f"export of {study.name}", ENDINGS, of_it)
    text = study.best_text(as_json=as_json)
    if output is None:
        sys.stdout.write(text)
        return
    with written_whole(output) as new:
        new.write_text(text, encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(output))}[/]", soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    sys.stdout.write(to_json(value, indent=2) + "\n")


def _is_none(path: Path) -> bool:
    """Return that a file is no earlier export: nothing in it tells."""
    return False
