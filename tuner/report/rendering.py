"""Renders the HTML pages from the templates of this package."""

from __future__ import annotations

import base64
import functools
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Render a template; all values are escaped.

    Args:
        template: name of a file in `templates/`.
        values: its variables.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tuner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda content: base64.b64encode(content).decode(),
        "quote": shlex.quote,
        "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
    }
    return environment
