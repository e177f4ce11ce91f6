"""`tuner strategies`, `tuner studies`, `tuner show`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from tuner.errors import InputError
from tuner.launching.finding import read_as_it_stands
from tuner.strategies.registry import STRATEGIES
from tuner.watching.display import console, number, show_result, show_running, show_trials
from tuner.watching.plain_json import to_json
from tuner.watching.state import State, read_with_state

__all__ = ["show", "strategies", "studies"]


def strategies(as_json: bool) -> None:
    """Print every strategy with its options and their defaults."""
    if as_json:
        _print_json({name: _options(name) for name in STRATEGIES})
        return
    for name, strategy in STRATEGIES.items():
        console.print(f"[bold]{name}[/]  {strategy.summary}")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for option, facts in _options(name)["options"].items():
            table.add_row(f"    {option}", str(facts["default"]), facts["meaning"])
        console.print(table)


def _options(name: str) -> dict[str, Any]:
    strategy = STRATEGIES[name]
    fields = strategy.options.model_fields.items()
    return {
        "summary": strategy.summary,
        "options": {
            option: {"default": field.default, "meaning": field.description or ""}
            for option, field in fields
            if option != "name"
        },
    }


def studies(journal: str | None, as_json: bool) -> None:
    """Print the studies of this folder's journals, or of the one given."""
    from tuner.coordination.journal import read_journal, study_names
    from tuner.results.summary import summarize

    locations = [journal] if journal else sorted(map(str, Path("studies").glob("*.journal")))
    rows: list[dict[str, Any]] = []
    unreadable = False
    for location in locations:
        try:
            storage = read_journal(location)
            names = study_names(storage)
        except InputError as error:  # one bad file does not hide the others
            if journal:
                raise
            sys.stderr.write(f"tuner: {error}\n")
            unreadable = True
            continue
        for name in names:
            try:
                record, state = read_with_state(storage, name, location)
                rows.append(summarize(record) | {"state": state})
            except InputError as error:  # nor does somebody else's study
                sys.stderr.write(f"tuner: {error}\n")
    if as_json:
        _print_json(rows)
    elif rows:
        _print_studies(rows)
    elif not unreadable:
        console.print("no studies here; start one: [bold]tuner run EXPERIMENT.yaml[/]")
    if unreadable:
        raise typer.Exit(InputError.exit_status)


def _print_studies(rows: list[dict[str, Any]]) -> None:
    from tuner.results.summary import minute

    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "study",
        "experiment",
        "strategy",
        "seed",
        "trials",
        "state",
        "best",
        "created",
    ):
        table.add_column(heading, justify="right" if heading in ("trials", "best") else "left")
    for row in rows:
        best = row["best"]
        score = "-"
        if best:
            found = best["mean"] if best["search_score"] is None else best["search_score"]
            score = f"{row['metric']} {number(found)}"
        table.add_row(
            escape(row["study"]),
            escape(row["experiment"]),
            row["strategy"],
            str(row["seed"]),
            _trained(row["trials"]["trained"], row["budget"]),
            row["state"],
            score,
            minute(row["created"]),
        )
    console.print(table)


def _trained(trained: int, budget: int | None) -> str:
    """Write how many trials are trained, of how many; a later run may have asked for fewer."""
    if budget is None or trained == budget:
        return str(trained)
    return f"{trained} of {budget}" if trained < budget else f"{trained} ({budget} asked for)"


def show(study: str, journal: str | None, as_json: bool) -> None:
    """Print one study's result, its best trials and where they are in MLflow."""
    from tuner.cli.linking import links_as_json, show_links
    from tuner.results.summary import summarize

    record, state = read_as_it_stands(study, journal)
    if as_json:
        known = {"state": state, "links": links_as_json(record)}
        _print_json(summarize(record, with_trials=True) | known)
        return
    show_result(record, state)
    if state is State.RUNNING:
        show_running(record)
    show_trials(record)
    show_links(record, journal)


def _print_json(value: Any) -> None:
    sys.stdout.write(to_json(value, indent=2) + "\n")
