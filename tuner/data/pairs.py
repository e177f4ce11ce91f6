"""Pairs of texts, one of which is to be said of the other: checked, drawn, written as arrays."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.data.dataset import Dataset, Facts, Part, Preparations, Prepared, counted
from tuner.data.drawing import Draw, rows_of
from tuner.data.own_split import draw_parts
from tuner.data.reference import PairsRef, Shape
from tuner.data.scratch import save_arrays
from tuner.data.sequence_table import SequenceTable
from tuner.data.source import blamed, read_table
from tuner.data.tables import bounds_of
from tuner.data.vocabulary import UNKNOWN, Vocabulary, known_tokens
from tuner.dialect import Dialect
from tuner.experiment import Experiment

__all__ = ["PairsDataset", "check_pairs"]


def check_pairs(experiment: Experiment, *, all_data: bool = False) -> PairsDataset:
    """Read texts and what is to be said of them, and refuse all that can be refused.

    Every row is a pair. Both texts are cut alike, and taken as they are written. With `all_data`
    the pairs of the validation part are trained on as well.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
    data = experiment.data
    raw = read_table(data)
    with blamed(raw):
        table = SequenceTable.of(raw, data, "translate")
    tokens, whole = table.tokens()
    bounds = table.shortened(whole)
    said, said_bounds = table.target_tokens()
    draw = draw_parts(raw, table, data, None, ())
    if all_data:
        draw = draw.with_all()
    trained = rows_of(bounds, draw.training)
    vocabulary = known_tokens(tokens[trained], data, table.path)
    target = Vocabulary.of(said[rows_of(said_bounds, draw.training)])
    lengths = np.diff(said_bounds)[:, 0]
    longest = int(lengths[draw.training].max())
    steps = np.diff(bounds)[:, 0]
    cut = int((steps < np.diff(whole)[:, 0])[draw.seen].sum())
    notes = [
        ("steps of a text", _range(steps[draw.seen])),
        ("steps of a target", _range(lengths[draw.seen])),
        ("vocabulary", f"{counted(vocabulary.size, data.level)}, of targets {target.size}"),
    ]
    if cut:
        notes.append(("cut", f"{cut} of {counted(len(draw.seen), 'text')} to the {data.keep}"))
    unsayable = [
        i
        for i in draw.validation
        if (target.encode(said[slice(*said_bounds[i])]) == UNKNOWN).any() or lengths[i] > longest
    ]
    if unsayable:
        text = f"{len(unsayable)} of {counted(len(draw.validation), 'target')} in validation hold "
        notes.append(("never right", f"{text}tokens or a length that no training target has"))
    facts = Facts(
        path=table.path,
        sha256=raw.sha256,
        rows=len(table.rows),
        features=(str(data.text),),
        targets=tuple(data.targets),
        parts=tuple(Part(name, len(part), "sequence") for name, part in draw.named().items()),
        vocabulary=len(vocabulary),
        notes=(*(("read", found) for found in raw.notes), *notes),
    )
    shape = Shape(
        "translate",
        features=0,
        vocabulary=len(vocabulary),
        classes=len(target) + 2,
        horizon=longest,
    )
    arrays = _Arrays(
        vocabulary.encode(tokens),
        bounds,
        _padded(target.encode(said), said_bounds),
        _padded(target.encode(tokens), bounds),
    )
    return PairsDataset(facts, experiment, shape, arrays, draw, vocabulary, target, raw.of_the_kind)


def _range(lengths: np.ndarray) -> str:
    least, most = lengths.min(), lengths.max()
    return f"{least} to {most}" if least < most else f"{most}"


def _padded(tokens: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return tokens, (rows,), as (sequences, longest), padded with 0."""
    lengths = np.diff(bounds)[:, 0]
    found = np.zeros((len(bounds), lengths.max()), np.int64)
    found[np.arange(found.shape[1]) < lengths[:, None]] = tokens[
        rows_of(bounds, np.arange(len(bounds)))
    ]
    return found


@dataclass(frozen=True, eq=False)
class _Arrays:
    tokens: np.ndarray  # (rows,)
    bounds: np.ndarray  # (texts, 2)
    truth: np.ndarray  # (texts, longest), padded with 0
    copied: np.ndarray  # (texts, longest text): each text itself, as tokens of a target


@dataclass(frozen=True, eq=False)
class PairsDataset(Dataset):
    """Pairs that nothing is wrong with."""

    facts: Facts
    experiment: Experiment
    shape: Shape
    arrays: _Arrays
    draw: Draw
    vocabulary: Vocabulary
    target: Vocabulary
    dialect: Dialect  # how the file is written

    def write(self, folder: Path) -> Prepared:
        """Write the training and the validation part."""
        a, seen = self.arrays, self.draw.seen
        kept = _Arrays(
            a.tokens[rows_of(a.bounds, seen)],
            bounds_of(np.diff(a.bounds[seen])[:, 0]),
            a.truth[seen],
            a.copied[seen],
        )
        training, validation = (
            np.searchsorted(seen, part) for part in (self.draw.training, self.draw.validation)
        )
        draw = Draw(training, validation, test=np.empty(0, np.int64))
        without_test = dataclasses.replace(self, arrays=kept, draw=draw)
        return without_test._write(folder, seen, evaluate=validation)

    def write_test(self, folder: Path) -> Prepared:
        """Write everything, the test part to evaluate; to be called by `tuner.data.test_part`."""
        return self._write(folder, np.arange(len(self.arrays.bounds)), evaluate=self.draw.test)

    def _write(self, folder: Path, rows: np.ndarray, *, evaluate: np.ndarray) -> Prepared:
        def write(experiment: Experiment, folder: Path) -> Prepared:
            save_arrays(
                folder,
                {
                    **vars(self.arrays),
                    "train": self.draw.training,
                    "evaluate": evaluate,
                    "most_frequent": self._most_frequent(),
                },
            )
            ref = PairsRef(str(folder), self.shape)
            return Prepared(
                self.facts.without_values(), (ref,), self._pipeline(), lambda i: str(rows[i])
            )

        return Preparations(self.experiment, folder, write).own

    def _most_frequent(self) -> np.ndarray:
        """Return the target that most pairs of the training part have, (longest,)."""
        counts = Counter(tuple(row) for row in self.arrays.truth[self.draw.training].tolist())
        return np.array(max(counts, key=lambda row: (counts[row], row)), np.int64)

    def _pipeline(self) -> dict[str, Any]:
        """Return how texts are read, and how what a model says is written, as JSON."""
        data = self.experiment.data
        return {
            "task": self.shape.task,
            "features": list(self.facts.features),
            "targets": data.targets,
            **{key: getattr(data, key) for key in ("text", "level", "max_length", "keep")},
            "vocabulary": list(self.vocabulary.tokens),
            "target_vocabulary": list(self.target.tokens),
            "longest": self.shape.horizon,
            "read": self.dialect.to_dict(),
        }
