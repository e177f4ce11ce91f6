from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.experiment import Experiment


@pytest.fixture
def experiment_on(tmp_path: Path) -> Callable[..., Experiment]:
    """An experiment on a CSV file with the given text."""

    def build(
        text: str,
        *,
        window: int = 2,
        horizon: int = 1,
        name: str = "series.csv",
        task: dict[str, Any] | None = None,
        blocks: dict[str, Any] | None = None,
        **data: Any,
    ) -> Experiment:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        asked = {"window": window, "horizon": horizon, **(task or {})}
        block = {"path": str(path), "target": "y", **data}
        return Experiment.model_validate(
            {"name": "test", "data": block, "task": asked, **(blocks or {})}
        )

    return build
