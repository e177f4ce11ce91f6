import functools

import pytest
from helpers.model_cases import EVERY
from helpers.model_folders import make_model

from tuner.cli.app import run


@pytest.fixture(scope="session")
def kind(tmp_path_factory):
    """The training of a case, and the folder of its model and data: made once."""

    @functools.cache
    def make(name, file="data.csv"):
        folder = tmp_path_factory.mktemp("kind")
        frame, raw = EVERY[name]
        return make_model(raw, folder, frame, file), folder

    return make


@pytest.fixture
def refuses(capfd, tmp_path):
    """`tuner predict` refuses in one line with these parts, and writes nothing."""

    def check(*parts, command=("model", "data.csv")):
        before = sorted(tmp_path.rglob("*"))
        capfd.readouterr()
        assert run(["predict", *command]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert [part for part in parts if part not in err] == [], err
        assert "data." not in err.replace("data.csv", ""), "a key of an experiment"
        assert sorted(tmp_path.rglob("*")) == before

    return check
