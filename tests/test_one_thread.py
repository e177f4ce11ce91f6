"""Baselines are computed in one thread: their scores do not depend on a machine's cores."""

import numpy as np
import pandas as pd
import scipy.linalg  # noqa: F401  # has a library of its own
from threadpoolctl import threadpool_info, threadpool_limits

from tuner.data.baselines import Baselines, baselines_record, choose
from tuner.data.prepared import check_data
from tuner.experiment import Experiment
from tuner.one_thread import one_thread


def n_threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_the_last_to_leave_restores_the_number_of_threads():
    with threadpool_limits(3, user_api="blas"):
        one_thread.__enter__()
        one_thread.__enter__()
        assert set(n_threads()) == {1}
        one_thread.__exit__()
        assert set(n_threads()) == {1}
        one_thread.__exit__()
        assert set(n_threads()) == {3}


def wide_experiment(folder):
    """A series with many columns: products of its matrices are done by several threads."""
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(12)]
    frame = pd.DataFrame(np.cumsum(rng.normal(size=(4000, 12)), axis=0), columns=names)
    frame["y"] = np.sin(np.arange(4000) / 4) + 0.1 * rng.normal(size=4000)
    frame.to_parquet(folder / "wide.parquet", index=False)
    return Experiment.from_dict(
        {
            "name": "wide",
            "data": {"path": str(folder / "wide.parquet"), "target": "y", "features": [*frame]},
            "task": {"window": 24, "horizon": 12},
        }
    )


def test_scores_do_not_depend_on_the_number_of_threads(tmp_path):
    dataset = check_data(wide_experiment(tmp_path))
    ref = dataset.write(tmp_path / "arrays").folds[-1]
    (test,) = dataset.write_test(tmp_path / "test").folds
    found = []
    for n in (1, 2):
        with threadpool_limits(n, user_api="blas"):
            record = baselines_record("rmse", [ref], None)
            found.append((record, Baselines(test, None, choose("rmse", ref, None)).scores("rmse")))
    assert "linear" in found[0][0]["baselines"]
    assert found[0] == found[1]
