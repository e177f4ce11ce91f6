"""The only way to the test part."""

from __future__ import annotations

from pathlib import Path

from tuner.data.dataset import Prepared
from tuner.data.preparing import check_data, check_same
from tuner.experiment import Experiment

__all__ = ["open_test_part"]


def open_test_part(
    experiment: Experiment,
    folder: Path,
    *,
    sha256: str | None = None,
    all_data: bool = False,
) -> Prepared:
    """Write all data into `folder` and return it with the test part to evaluate.

    To be called once, at the end of a study, by the one who records that the test was opened.
    The scalers are those of the search (with rolling origins, of its last fold), for they are
    fitted on the same training part; of models that were trained on all before the test part,
    those that are fitted on that. The rows to evaluate are the same for both.

    Args:
        experiment: the study's.
        folder: a folder of its own, that no job of the search refers to.
        sha256: of the data that was searched on; the file may have changed meanwhile.
        all_data: whether it is for models that were trained on the validation part too.

    Raises:
        DataError: the file is not what it was.
    """
    dataset = check_data(experiment, all_data=all_data)
    check_same(dataset.facts, sha256)
    return dataset.write_test(folder)
