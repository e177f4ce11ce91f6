from __future__ import annotations

import pytest
from search_bench import Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "s.journal")


@pytest.fixture
def make_bench(tmp_path):
    return lambda name: Bench(tmp_path / f"{name}.journal")
