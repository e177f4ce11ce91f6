"""The only way to the test part."""

from __future__ import annotations

from pathlib import Path

from tuner.data.dataset import Prepared
from tuner.data.preparing import check_data
from tuner.data.tables import refusal
from tuner.experiment import Experiment

__all__ = ["open_test_part"]


def open_test_part(experiment: Experiment, folder: Path, *, sha256: str | None = None) -> Prepared:
    """Write all data into `folder` and return it with the test part to evaluate.

    To be called once, at the end of a study, by the one who records that the test was opened.
    The scalers are those of the search (with rolling origins, of its last fold), for they are
    fitted on the same training part.

    Args:
        experiment: the study's.
        folder: a folder of its own, that no job of the search refers to.
        sha256: of the data that was searched on; the file may have changed meanwhile.

    Raises:
        DataError: the file is not what it was.
    """
    dataset = check_data(experiment)
    facts = dataset.facts
    if sha256 is not None and facts.sha256 != sha256:
        text = f"must be the file that was searched on (sha256 {sha256[:12]}), got "
        remedy = f"{facts.sha256[:12]}; bring the file back"
        raise refusal(facts.path, "data.path", text + remedy)
    return dataset.write_test(folder)
