import functools

import pytest
from helpers.model_cases import EVERY
from helpers.model_folders import make_model


@pytest.fixture(scope="session")
def kind(tmp_path_factory):
    """The training of a case, and the folder of its model and data: made once."""

    @functools.cache
    def make(name, file="data.csv"):
        folder = tmp_path_factory.mktemp("kind")
        frame, raw = EVERY[name]
        return make_model(raw, folder, frame, file), folder

    return make
