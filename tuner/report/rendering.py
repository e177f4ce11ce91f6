"""How pages of HTML are rendered: jinja2, in which every value is escaped, and its filters."""

from __future__ import annotations

import base64
import functools
import shlex
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING

from tuner.report.plotting import number

if TYPE_CHECKING:
    from jinja2 import Environment

    from tuner.journal.records import Scores
    from tuner.results.summary import Configuration


@functools.cache
def make_environment(package: str) -> Environment:
    """Return the environment for the files of `templates/` in a package; undefined names raise."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda content: base64.b64encode(content).decode(),
        "duration": duration,
        "file_name": lambda path: PurePath(str(path)).name,
        "number": number,
        "quote": shlex.quote,
        "s": lambda count: "s" if count != 1 else "",
        "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
        "with_std": with_std,
    }
    return environment


def palette() -> str:
    """Return the colours of all pages, light and dark, as CSS."""
    return files("tuner.report").joinpath("templates/palette.css").read_text(encoding="utf-8")


def duration(seconds: float) -> str:
    """Format a duration: 3.2 s, 1.5 min, 2.0 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if hours < 1 else f"{hours:.1f} h"


def with_std(scores: Scores | Configuration) -> str:
    """Format the mean of scores, with their standard deviation."""
    if scores.mean is None:
        return "not finite"
    return number(scores.mean) + (f" ± {number(scores.std, 2)}" if scores.std is not None else "")
