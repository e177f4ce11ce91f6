"""Commands that people are told to type; none shows a password."""

from __future__ import annotations

import shlex

from tuner.errors import show_location

__all__ = ["journal_option", "sync_command"]


def journal_option(journal: str | None) -> str:
    """Return ` --journal ...` as it was given; nothing where it was not."""
    return f" --journal {shlex.quote(show_location(journal))}" if journal else ""


def sync_command(name: str, journal: str | None, register: str | None = None) -> str:
    """Return the command that completes what MLflow lacks of a study."""
    registered = f" --register {shlex.quote(register)}" if register else ""
    return f"tuner sync {shlex.quote(name)}{journal_option(journal)}{registered}"
