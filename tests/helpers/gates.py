"""Gates: calls of a method wait until the test lets them through."""

from __future__ import annotations

import threading
from typing import Any

import pytest


class Gate:
    """Has the calls of a method wait; leaving the block opens it.

    Args:
        monkeypatch: replaces the method.
        owner: has it.
        name: of the method.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self._there, self._opened = threading.Event(), threading.Event()
        method = getattr(owner, name)

        def gated(*args: Any, **keys: Any) -> Any:
            self._there.set()
            assert self._opened.wait(20)
            return method(*args, **keys)

        monkeypatch.setattr(owner, name, gated)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *error: object) -> None:
        self.open()

    def reached(self) -> None:
        """Wait until a call is at the gate."""
        assert self._there.wait(20)

    def open(self) -> None:
        """Let all calls through, now and later."""
        self._opened.set()
