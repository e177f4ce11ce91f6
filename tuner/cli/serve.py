"""`tuner serve` and `tuner token`."""

from __future__ import annotations

import os
from typing import cast, get_args

import typer

from tuner.cli.app import Serve, Token
from tuner.errors import InputError, nearest
from tuner.service.access import Role, new_token, roles_of
from tuner.service.server import check, log_to_stderr
from tuner.service.server import serve as run_server
from tuner.service.service import Service
from tuner.service.settings import Settings


def serve(command: Serve) -> None:
    """Serve searches over HTTP until Ctrl-C."""
    settings = Settings(
        root=command.root,
        host=command.host,
        port=command.port,
        workers=command.workers,
        executor=command.executor,
        journal=command.journal,
        tokens=command.tokens,
        allow_code=command.allow_code,
        allow_hosts=tuple(command.allow_host or ()),
        public_url=command.public_url,
    )
    os.umask(0o077)  # what MLflow and databases write in the folder is private, too
    check(settings)
    log_to_stderr()
    run_server(settings, Service(settings), typer.echo)


def token(command: Token) -> None:
    """Make a token, and print it."""
    if command.role not in (roles := get_args(Role)):
        rule, remedy = f"unknown role {command.role!r}", nearest(command.role, roles)
        raise InputError(rule, where="--role", remedy=remedy)
    typer.echo(new_token(command.tokens, command.owner, cast("Role", command.role)))
    typer.echo(f"{command.tokens} has its hash; the token is not shown again", err=True)
    if command.role == "read" and "write" not in roles_of(command.tokens, command.owner):
        own = f"{command.owner} has no token that may write"
        remedy = "give the owner whose studies it shall see, or make one with --role write"
        typer.echo(f"note: {own}, so there is nothing to read; {remedy}", err=True)
