"""`tuner init`."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from tuner.cli.app import Init, key_and_value
from tuner.cli.remote import client_of, server_option
from tuner.errors import InputError, refusal
from tuner.experiment import parse_value
from tuner.experiment.yaml_files import text_of
from tuner.outputs import written_whole
from tuner.planning.file import InitOptions, ProposedFile, propose
from tuner.progress.display import console

if TYPE_CHECKING:
    from tuner.client import Client

_WORDS = ("true", "false")


def init(command: Init) -> None:
    """Write an experiment file for a data file."""
    path = command.data
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        rule = "must be a CSV or Parquet file"
        raise InputError(rule, where=path, remedy="tuner check takes experiments")
    names = [each.name for each in dataclasses.fields(InitOptions) if each.name != "read"]
    options = InitOptions(**{name: getattr(command, name) for name in names})
    options.check()
    file = command.output or Path(f"{path.stem}.yaml")
    _check_output(file, path, command.force)
    relative = os.path.relpath(path.resolve(), file.parent.resolve())
    options = dataclasses.replace(options, read=_read_keys(command.read or []))
    if (client := client_of(command)) is None:
        proposed = propose(path, options, file=file, written_path=relative)
    else:
        proposed = _proposed_by(client, path, options, file, relative)
    with written_whole(file) as new:
        new.write_text(proposed.text, encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(file))}[/]: {proposed.does}")
    for line in proposed.notes:
        console.print(line, markup=False)
    name = escape(f"{shlex.quote(str(file))}{server_option(command.server)}")
    next_ = f"next: [bold]tuner check {name}[/], then [bold]tuner run {name}[/]"
    console.print(next_, soft_wrap=True)


def _proposed_by(
    client: Client, data: Path, options: InitOptions, file: Path, written_path: str
) -> ProposedFile:
    """Return what a service proposes for a file, which is uploaded; arguments as of `propose`."""
    if not data.is_file():
        raise refusal(data, "data.path", "no such file", remedy="check the path")
    dataset = client.upload(data)
    given = {k: v for k, v in dataclasses.asdict(options).items() if v not in (None, False, {})}
    answer = client.proposal(dataset, name=file.stem, **given)
    text = answer["yaml"].replace(text_of(dataset.reference), text_of(written_path), 1)
    return ProposedFile(text, escape(answer["does"]), tuple(answer["notes"]))


def _read_keys(options: list[str]) -> dict[str, object]:
    """Return the keys of `data.read` that `--read KEY=VALUE` give.

    Raises:
        InputError: an option is not KEY=VALUE.
    """
    keys: dict[str, object] = {}
    for option in options:
        key, value = key_and_value("--read", option, "--read 'decimal=,'")
        text = value.strip()
        held = parse_value(text, "--read") if text[:1] in "[\"'" or text in _WORDS else text
        lines = key in ("skip_rows", "skip_footer") and text.isdigit()
        keys[key] = int(text) if lines else held
    return keys


def _check_output(output: Path, data: Path, force: bool) -> None:
    if output.is_dir():
        rule = f"{output} is a folder"
        raise InputError(rule, where="-o", remedy="give the name of a file in it")
    if output.exists() and output.resolve() == data.resolve():
        raise InputError(f"{output} is the data file", where="-o", remedy="give another name")
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise InputError("must end in .yaml or .yml", where="-o", got=output, remedy="rename it")
    if output.exists() and not force:
        rule = "exists already"
        raise InputError(rule, where=output, remedy="give another name with -o, or add --force")
    if not output.parent.is_dir():
        raise InputError(f"no such folder {output.parent}", where="-o", remedy="create it first")
