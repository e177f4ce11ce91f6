"""What `tuner check` shows, as data."""

import json
from pathlib import Path

import pytest

from tuner.data.prepared import check_data
from tuner.experiment import Experiment
from tuner.planning.check import STRATEGY, Check, check_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", ["air_passengers", "waves"])
def test_a_check_survives_json(name):
    experiment = Experiment.load(EXPERIMENTS / f"{name}.yaml")
    found = check_experiment(experiment, check_data(experiment).facts)
    again = Check.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again == found
    assert [name for name, _ in found.rows].count(STRATEGY) == 1
    assert [name for name, _, _ in found.space] == list(experiment.search_space)
