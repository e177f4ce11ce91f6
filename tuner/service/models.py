"""Winners' models that the service keeps, and records as clients see them.

Clients see the paths of data as they wrote them; the server's paths are its own.
"""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tuner.coordination.coordinator import WinnerModel
from tuner.data.prepared import DataSource
from tuner.errors import RunError
from tuner.executors import Executor
from tuner.journal.records import StudyRecord
from tuner.outputs import scratch_folder
from tuner.results.export import write_model
from tuner.winner import KeptModel, TrainedWinner, retrained

_CHUNK = 1 << 16  # bytes of a tar at a time


def as_client_wrote(record: StudyRecord, name: str, paths: Mapping[str, str]) -> StudyRecord:
    """Return a record with a study's own name, and with paths of data as the client wrote them.

    Args:
        record: as the journal has it.
        name: of the study in its owner's namespace.
        paths: the client's paths by those of the server.
    """
    data = {k: paths.get(v, v) if isinstance(v, str) else v for k, v in record.data.items()}
    block = record.experiment.data
    split = block.split.model_copy(
        update={"test_file": paths.get(block.split.test_file or "", block.split.test_file)}
    )
    block = block.model_copy(update={"path": paths.get(block.path, block.path), "split": split})
    experiment = record.experiment.model_copy(update={"data": block})
    return dataclasses.replace(record, name=name, data=data, experiment=experiment)


class ServedModel(KeptModel):
    """Keeps the winner's model of a search in a folder of the service.

    Args:
        place: the folder; an earlier model in it is replaced.
        note: receives notes for the user.
        seen: returns a record as clients see it.
        source: reads the data where the winner is trained again.
    """

    def __init__(
        self,
        place: Path,
        note: Callable[[str], None],
        seen: Callable[[StudyRecord], StudyRecord],
        source: DataSource,
    ) -> None:
        super().__init__(note)
        self._place, self._seen, self._source = place, seen, source
        self._failed = False  # to write the model

    def on_winner(self, model: WinnerModel) -> None:
        if isinstance(model, TrainedWinner):
            model = dataclasses.replace(model, record=self._seen(model.record))
        super().on_winner(model)
        self._failed = self.folder is None
        if self.folder is not None:
            keep_folder(self.folder, self._place)

    def is_missing(self, record: StudyRecord) -> bool:
        """Return whether the service ended after the test, before the model was kept."""
        return record.test is not None and not self._failed and not self._place.exists()

    def train(self, record: StudyRecord, executor: Executor) -> None:
        """Train the winner again, and keep its model."""
        try:
            with scratch_folder() as folder:
                training = retrained(record, executor=executor, source=self._source)
                block = self._seen(record).experiment.data
                experiment = training.experiment.model_copy(update={"data": block})
                training = dataclasses.replace(training, experiment=experiment)
                write_model(training, folder / "model", executor, moves=True)
                keep_folder(folder / "model", self._place)
        except RunError as error:
            self._note(f"the winner's model cannot be written: {error}")


def keep_folder(folder: Path, place: Path) -> None:
    """Copy a folder to its place, whole or not at all; an earlier one is replaced."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(folder, new)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def tar_of(folder: Path) -> Iterator[bytes]:
    """Yield a tar of the files in a folder."""
    for path in sorted(folder.iterdir()):
        facts = tarfile.TarInfo(path.name)
        facts.size, facts.mode = path.stat().st_size, 0o644
        facts.mtime = int(path.stat().st_mtime)
        yield facts.tobuf()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield bytes(-facts.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
