"""Independent sequences and pairs of texts as arrays on disk."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from tuner.data.linear_models import MOST_VALUES
from tuner.data.prepared import (
    Dataset,
    Facts,
    Part,
    Prepared,
    check_metric,
    constant_targets,
    counted,
)
from tuner.data.preprocessing import Scaler
from tuner.data.reference import PairsRef, SequencesRef, Shape
from tuner.data.sample_names import SampleNames
from tuner.data.sequence_table import Draw, SequenceTable, check_labels
from tuner.data.splits import draw_parts
from tuner.data.vocabulary import UNKNOWN, Vocabulary, known_tokens
from tuner.errors import refusal
from tuner.experiment import Experiment
from tuner.experiment.data import Data
from tuner.outputs import save_arrays
from tuner.pipeline_steps import Dialect
from tuner.tables.frequencies import bounds_of, rows_of
from tuner.tables.table import naming_files, read_table

Note = tuple[str, str]  # what `tuner check` notes, and how many


def check_sequences(experiment: Experiment, *, all_data: bool = False) -> SequenceDataset:
    """Read the data and refuse everything about it that can be refused; write nothing.

    The rows with one `data.id` are a sequence, in the order of the file; with `data.text` every
    row is one. Ids, texts, tokens and classes are strings as in the file: NA and 01 stay. With
    `all_data` the sequences of the validation part are trained on as well.
    """
    data, kind = experiment.data, experiment.task.kind
    assert not experiment.task.of_series
    raw = read_table(data)
    with naming_files(raw):
        table = SequenceTable.of(raw, data, kind)
        has_classes = kind in ("classify", "label")
        truth, classes = table.classes(kind) if has_classes else (table.values(kind), ())
        weights = table.weights(each_step=experiment.task.each_step)
    vocabulary, n_filled, whole = None, 0, table.bounds
    if seen := data.text or data.tokens:
        features = [seen]
        tokens, whole = table.tokens()
        table.check_numbers(tokens)
    else:
        with naming_files(raw):
            features, steps, n_filled = table.features()
    bounds = table.shortened(whole)
    draw = draw_parts(table, data, truth if kind == "classify" else None, classes)
    if kind == "label":
        check_labels(draw, bounds, truth, classes, table.path)
    if all_data:
        draw = draw.with_all()
    notes = _notes(data, whole[draw.seen], bounds[draw.seen], n_filled)
    trained = rows_of(bounds[draw.training]) if experiment.task.each_step else draw.training
    if not classes:
        notes += constant_targets(data.targets, truth[trained])
    if seen:
        vocabulary = known_tokens(tokens[rows_of(bounds[draw.training])], data, table.path)
        steps = vocabulary.encode(tokens)
        notes += _notes_of_tokens(data, vocabulary, steps, bounds, draw)
    else:
        notes += table.suspects(features)
    n_tokens = 0 if vocabulary is None else len(vocabulary)
    facts = _facts(table, draw, features, notes, classes=classes, vocabulary=n_tokens)
    lengths = np.diff(bounds[draw.training])[:, 0]
    shape = Shape(
        kind,
        window=int(lengths[0]) if lengths.min() == lengths.max() else 0,
        features=0 if seen else len(features),
        vocabulary=facts.vocabulary,
        targets=len(data.targets),
        classes=len(classes),
    )
    dataset = SequenceDataset(
        facts, experiment, shape, steps, bounds, truth, draw, vocabulary, table.names,
        raw.reusable_dialect, weights,
    )  # fmt: skip
    dataset.check(experiment.objective.metric)
    _check_path(experiment, dataset)
    return dataset


def _facts(
    table: SequenceTable, draw: Draw, features: list[str], notes: list[Note], **more: Any
) -> Facts:
    return Facts(
        path=table.path,
        sha256=table.raw.sha256,
        rows=len(table.rows),
        features=tuple(features),
        targets=tuple(table.data.targets),
        parts=tuple(Part(name, len(part), "sequence") for name, part in draw.named().items()),
        notes=(*(("read", found) for found in table.raw.notes), *notes),
        **more,
    )


def _check_path(experiment: Experiment, dataset: SequenceDataset) -> None:
    """Refuse a linear path where the sequences differ in length, or are too long for one."""
    key, domain = "hyperparameters.linear_path", experiment.search_space.get("linear_path")
    asked: object = experiment.hyperparameters.linear_path
    if domain is not None:
        key, asked = "search_space.linear_path", True in domain.bounds()
    if not asked:
        return
    shape, lengths = dataset.shape, np.diff(dataset.bounds)[:, 0]
    remedy = "write false, or remove it"
    if lengths.min() < lengths.max():
        rule = "needs sequences that all have the same number of steps"
        got = f"{lengths.min()} to {lengths.max()} steps"
        raise refusal(dataset.facts.path, key, rule, got, remedy)
    if (numbers := shape.window * shape.features) > MOST_VALUES:
        rule = f"takes sequences of at most {MOST_VALUES:,} numbers, steps times features"
        raise refusal(dataset.facts.path, key, rule, f"{numbers:,}", remedy)


def _notes(data: Data, whole: np.ndarray, bounds: np.ndarray, n_filled: int) -> list[Note]:
    """Return notes on the lengths of sequences.

    `whole` are their bounds in the file, (sequences, 2), `bounds` those of the steps that are read.
    """
    lengths = np.diff(bounds)[:, 0]
    notes = [("steps in a sequence", _range(lengths))]
    if n_cut := int((lengths < np.diff(whole)[:, 0]).sum()):
        text = f"{n_cut} of {counted(len(bounds), 'sequence')} to the {data.keep} {lengths.max()} "
        notes.append(("cut", f"{text}steps"))
    if n_filled:
        notes.append(("filled in", counted(n_filled, "value")))
    return notes


def _notes_of_tokens(
    data: Data, vocabulary: Vocabulary, steps: np.ndarray, bounds: np.ndarray, draw: Draw
) -> list[Note]:
    """Return notes on how many tokens are known, and how many of each part are not."""
    unit = "token" if data.text is None else data.level
    notes = [("vocabulary", counted(vocabulary.size, unit))]
    parts = []
    for name, part in (("training", draw.training), ("validation", draw.validation)):
        tokens = steps[rows_of(bounds[part])]
        if n_unknown := int((tokens == UNKNOWN).sum()):
            parts.append(f"{n_unknown} of {counted(len(tokens), unit)} in {name}")
    if parts:
        notes.append(("unknown", "; ".join(parts)))
    return notes


@dataclass(frozen=True, eq=False)
class SequenceDataset(Dataset):
    """Checked sequences, one after another."""

    facts: Facts
    experiment: Experiment
    shape: Shape
    steps: np.ndarray  # (rows, features), float64, without gaps; or tokens: (rows,), int64
    bounds: np.ndarray  # (sequences, 2), the rows [start, end) of each
    truth: np.ndarray  # (sequences, targets) or (rows, targets), float64; of classes no targets
    draw: Draw
    vocabulary: Vocabulary | None  # of the training part; None where the steps are numbers
    names: np.ndarray  # (sequences,), their ids, or their numbers where they have none
    dialect: Dialect  # how the file is written
    weights: np.ndarray | None = None  # (sequences,) or (rows,), as truth; None: all count alike

    def check(self, metric: str) -> None:
        """Refuse a metric that has no score in the validation or the test part."""
        for part, members in self.draw.named().items():
            truth = self._of(self.truth, members)
            if self.weights is not None:
                counts = self._of(self.weights, members) > 0
                if not counts.any():
                    weight = self.experiment.data.weight
                    rule = f"column {weight!r} must be above 0 somewhere in the {part} part"
                    remedy = "give some more weight, or remove data.weight"
                    raise refusal(self.facts.path, "data.weight", rule, "0 for all", remedy)
                truth = truth[counts]
            if part == "training":
                continue
            units = None
            if not self.shape.classes:
                units = np.tile(self._mean_errors(), (len(truth), 1))
            check_metric(metric, self.facts, part, truth, units)

    def _of(self, array: np.ndarray, sequences: np.ndarray) -> np.ndarray:
        of = rows_of(self.bounds[sequences]) if self.shape.each_step else sequences
        return np.asarray(array[of])

    def _mean_errors(self) -> np.ndarray:
        """Return the mean absolute error of the mean of the training targets, (targets,).

        A sequence has no earlier value to repeat, so the mean is the naive prediction.
        """
        known = self._of(self.truth, self.draw.training)
        return np.asarray(np.abs(known - known.mean(axis=0)).mean(axis=0))

    def _before_test(self) -> Self:
        seen = self.draw.seen
        return dataclasses.replace(
            self,
            steps=self.steps[rows_of(self.bounds[seen])],
            bounds=bounds_of(np.diff(self.bounds[seen])[:, 0]),
            truth=self._of(self.truth, seen),
            weights=None if self.weights is None else self._of(self.weights, seen),
            names=self.names[seen],
            draw=self.draw.before_test(),
        )

    def _write(self, experiment: Experiment, folder: Path, *, test: bool = False) -> Prepared:
        data, evaluate = experiment.data, self.draw.test if test else self.draw.validation
        train = self.draw.training
        arrays = {"bounds": self.bounds, "truth": self.truth, "train": train, "evaluate": evaluate}
        if self.weights is not None:
            arrays["weights"] = self.weights
        inputs = targets = None
        if self.vocabulary is None:
            inputs = Scaler.fit(data.scale, self.steps[rows_of(self.bounds[train])])
            arrays["inputs"] = inputs.transform(self.steps)
        else:
            arrays["tokens"] = self.steps
        ref = SequencesRef(str(folder), self.shape, weighted=self.weights is not None)
        if not self.shape.classes:
            targets = Scaler.fit(data.scale, self._of(self.truth, train))
            arrays["targets"] = targets.transform(self.truth)
            offset, scale = (tuple(of.tolist()) for of in (targets.offset, targets.scale))
            errors = tuple(self._mean_errors().tolist())
            ref = dataclasses.replace(ref, mean_errors=errors, offset=offset, scale=scale)
        save_arrays(folder, arrays)
        pipeline, facts = self._pipeline(data, inputs, targets), self.facts.without_values()
        return Prepared(facts, (ref,), pipeline, SampleNames(self.names))

    def _pipeline(
        self, data: Data, inputs: Scaler | None, targets: Scaler | None
    ) -> dict[str, Any]:
        """Return how steps are made of rows, and values of outputs, as JSON."""
        keys = ("id", "time", "text", "tokens", "level", "vocabulary_size", "max_length", "keep",
                "missing", "scale")  # fmt: skip
        return {
            "task": self.shape.task,
            "features": list(self.facts.features),
            "targets": data.targets,
            **{key: getattr(data, key) for key in keys},
            "read": self.dialect.to_dict(),
            "vocabulary": list(self.vocabulary.tokens) if self.vocabulary else None,
            "classes": list(self.facts.classes),
            "inputs": _as_json(self.facts.features, inputs),
            "outputs": _as_json(self.facts.targets, targets),
        }


def _as_json(names: tuple[str, ...], scaler: Scaler | None) -> dict[str, list[Any]] | None:
    return None if scaler is None else {"names": list(names), **scaler.record()}


def check_pairs(experiment: Experiment, *, all_data: bool = False) -> PairsDataset:
    """Read pairs of texts and refuse everything about them that can be refused.

    Every row is a pair. Both texts are cut alike. With `all_data` the pairs of the validation part
    are trained on as well.
    """
    data = experiment.data
    raw = read_table(data)
    with naming_files(raw):
        table = SequenceTable.of(raw, data, "translate")
    tokens, whole = table.tokens()
    bounds = table.shortened(whole)
    said, said_bounds = table.target_tokens()
    draw = draw_parts(table, data, None, ())
    if all_data:
        draw = draw.with_all()
    vocabulary = known_tokens(tokens[rows_of(bounds[draw.training])], data, table.path)
    target = Vocabulary.of(said[rows_of(said_bounds[draw.training])])
    lengths, steps = (np.diff(of)[:, 0] for of in (said_bounds, bounds))
    longest = int(lengths[draw.training].max())
    notes = [
        ("steps of a text", _range(steps[draw.seen])),
        ("steps of a target", _range(lengths[draw.seen])),
        ("vocabulary", f"{counted(vocabulary.size, data.level)}, of targets {target.size}"),
    ]
    if n_cut := int((steps < np.diff(whole)[:, 0])[draw.seen].sum()):
        notes.append(("cut", f"{n_cut} of {counted(len(draw.seen), 'text')} to the {data.keep}"))
    unsayable = sum(
        bool((target.encode(said[slice(*said_bounds[i])]) == UNKNOWN).any() or lengths[i] > longest)
        for i in draw.validation
    )
    if unsayable:
        text = f"{unsayable} of {counted(len(draw.validation), 'target')} in validation hold "
        notes.append(("never right", f"{text}tokens or a length that no training target has"))
    facts = _facts(table, draw, [str(data.text)], notes, vocabulary=len(vocabulary))
    shape = Shape(
        "translate", features=0, vocabulary=len(vocabulary), classes=len(target) + 2,
        horizon=longest,
    )  # fmt: skip
    arrays = _Arrays(
        vocabulary.encode(tokens),
        bounds,
        _padded(target.encode(said), said_bounds),
        _padded(target.encode(tokens), bounds),
    )
    return PairsDataset(
        facts, experiment, shape, arrays, draw, vocabulary, target, table.names,
        raw.reusable_dialect,
    )  # fmt: skip


def _range(lengths: np.ndarray) -> str:
    least, most = lengths.min(), lengths.max()
    return f"{least} to {most}" if least < most else f"{most}"


def _padded(tokens: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    lengths = np.diff(bounds)[:, 0]
    found = np.zeros((len(bounds), lengths.max()), np.int64)
    found[np.arange(found.shape[1]) < lengths[:, None]] = tokens[rows_of(bounds)]
    return found


@dataclass(frozen=True, eq=False)
class _Arrays:
    tokens: np.ndarray  # (rows,)
    bounds: np.ndarray  # (texts, 2)
    truth: np.ndarray  # (texts, longest), padded with 0
    copied: np.ndarray  # (texts, longest text): each text itself, as tokens of a target


@dataclass(frozen=True, eq=False)
class PairsDataset(Dataset):
    """Checked pairs of texts."""

    facts: Facts
    experiment: Experiment
    shape: Shape
    arrays: _Arrays
    draw: Draw
    vocabulary: Vocabulary
    target: Vocabulary
    names: np.ndarray  # (texts,), their numbers in the file
    dialect: Dialect  # how the file is written

    def _before_test(self) -> Self:
        a, seen = self.arrays, self.draw.seen
        kept = _Arrays(
            a.tokens[rows_of(a.bounds[seen])],
            bounds_of(np.diff(a.bounds[seen])[:, 0]),
            a.truth[seen],
            a.copied[seen],
        )
        names, draw = self.names[seen], self.draw.before_test()
        return dataclasses.replace(self, arrays=kept, names=names, draw=draw)

    def _write(self, experiment: Experiment, folder: Path, *, test: bool = False) -> Prepared:
        train, evaluate = self.draw.training, self.draw.test if test else self.draw.validation
        counts = Counter(map(tuple, self.arrays.truth[train].tolist()))
        most_frequent = np.array(max(counts, key=lambda row: (counts[row], row)), np.int64)
        arrays = {**vars(self.arrays), "train": train, "evaluate": evaluate}
        save_arrays(folder, arrays | {"most_frequent": most_frequent})
        refs, facts = (PairsRef(str(folder), self.shape),), self.facts.without_values()
        return Prepared(facts, refs, self._pipeline(), SampleNames(self.names))

    def _pipeline(self) -> dict[str, Any]:
        """Return how texts are read and outputs are written, as JSON."""
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
