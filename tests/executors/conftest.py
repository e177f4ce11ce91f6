import numpy as np
import pytest
from helpers.prepared import write_series


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A short sine: a model of two weights a gate trains at once."""
    folder = tmp_path_factory.mktemp("arrays")
    return write_series(folder, np.sin(np.arange(120) / 3)[:, None], train_end=80)
