import pytest

from tuner.experiment import Experiment


@pytest.fixture
def experiment_on(tmp_path):
    """An experiment on a CSV file with the given text."""

    def build(text, *, window=2, horizon=1, name="series.csv", task=None, blocks=None, **data):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        asked = {"window": window, "horizon": horizon, **(task or {})}
        block = {"path": str(path), "target": "y", **data}
        return Experiment.model_validate(
            {"name": "test", "data": block, "task": asked, **(blocks or {})}
        )

    return build
