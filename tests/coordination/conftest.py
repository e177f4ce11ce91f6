from __future__ import annotations

import pytest
from search_bench import Bench

from tuner.coordination.journal import write_journal


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "s.journal")


@pytest.fixture
def make_bench(tmp_path):
    return lambda name: Bench(tmp_path / f"{name}.journal")


@pytest.fixture
def notes(monkeypatch):
    """What a bench's journal tells people; on a server the bench holds its study alone."""
    said = []
    monkeypatch.setattr(
        "search_bench.write_journal", lambda location: write_journal(location, "s", said.append)
    )
    return said
