"""What is refused, and in which words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tuner.errors import InputError


def assert_refused(call: Callable[[], object], *parts: str, where: object = None) -> None:
    """Assert that a call is refused in a line that begins with a place and holds every part."""
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert where is None or line.startswith(f"{where}: "), line
    assert [part for part in parts if part not in line] == [], line
    assert caught.value.exit_status == 2
