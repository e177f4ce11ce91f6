"""Draws independent sequences into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.data.tables import refusal

if TYPE_CHECKING:
    from tuner.experiment.data import Split

__all__ = ["Draw", "check_labels", "draw_sequences", "rows_of"]


@dataclass(frozen=True, eq=False)
class Draw:
    """The sequences of each part, by their numbers; every sequence is in one part."""

    training: np.ndarray  # (n,) int64, rising; so are the others
    validation: np.ndarray
    test: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """The sequences that a search may see, (n,), rising."""
        return np.union1d(self.training, self.validation)

    def named(self) -> dict[str, np.ndarray]:
        """Return the parts by name, in order."""
        return {"training": self.training, "validation": self.validation, "test": self.test}

    def with_all(self) -> Draw:
        """Return the parts where the validation part is trained on as well."""
        return Draw(self.seen, self.validation, self.test)


def rows_of(bounds: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Return the rows of sequences, one after another: (rows,)."""
    return np.concatenate([np.arange(first, end) for first, end in bounds[sequences]])


def draw_sequences(
    names: np.ndarray,
    split: Split,
    *,
    file: Path | str,
    labels: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
    with_test: bool = True,
    unit: str = "sequence",
) -> Draw:
    """Draw the parts with the split's seed; with labels, each class gets its share of each.

    They are drawn from the sequences in the order of their names, so the order of sequences in
    the file does not matter where they have ids. The test part is drawn first: it stays the same
    whatever is validated on.

    Args:
        names: of the sequences, (sequences,): their ids, or their numbers where they have none.
        split: shares or numbers of sequences; a half is rounded up.
        file: what a refusal names.
        labels: of the sequences to stratify, (sequences,), numbers of `classes`.
        classes: their names.
        with_test: whether a test part is drawn; else it is empty.
        unit: what a refusal calls what is drawn.

    Raises:
        DataError: a part is too small, or a class has too few sequences.
    """
    n, parts = len(names), ("validation", "test") if with_test else ("validation",)
    n_parts = 1 + len(parts)
    sizes = {name: _size(getattr(split, name), n) for name in parts}
    sizes = {"training": n - sum(sizes.values())} | sizes
    _check_sizes(sizes, n, file, unit)
    if labels is not None:
        for number, count in enumerate(np.bincount(labels, minlength=len(classes))):
            if count < n_parts:
                *first, last = sizes
                text = f"every class needs a {unit} in {', '.join(first)} and {last}, got {count} "
                text += f"of class {classes[number]!r}; give more of it, or remove it"
                raise refusal(file, "data.target", text)
        _check_classes(sizes, len(classes), file, unit)
    from sklearn.model_selection import train_test_split  # slow to import

    rest = np.argsort(names, kind="stable")  # (sequences,)
    # scikit-learn takes no Generator; this is the same stream, of a seed of any size.
    random = np.random.RandomState(np.random.PCG64(split.seed))
    drawn: dict[str, np.ndarray] = {}
    for part, left in reversed(list(zip(parts, (1, 2), strict=False))):  # parts of the rest
        strata = None if labels is None else labels[rest]
        rest, drawn[part] = train_test_split(
            rest, test_size=sizes[part], stratify=strata, random_state=random
        )
        if labels is not None:
            _check_shares(drawn[part], rest, left, part, split, labels, classes, file, unit)
    test = drawn.get("test", np.empty(0, np.int64))
    return Draw(np.sort(rest), np.sort(drawn["validation"]), np.sort(test))


def check_labels(
    draw: Draw, bounds: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], file: Path | str
) -> None:
    """Refuse a class that no step of a training sequence has, for it could never be learned.

    Args:
        draw: the parts.
        bounds: the steps [start, end) of the sequences, (sequences, 2).
        labels: of the steps, (steps,), numbers of `classes`.
        classes: their names.
        file: what a refusal names.

    Raises:
        DataError: naming the class.
    """
    trained = {c for first, end in bounds[draw.training] for c in np.unique(labels[first:end])}
    for number, name in enumerate(classes):
        if number not in trained:
            text = (
                f"every class must occur in the training part, got {name!r} in validation or test "
                f"alone; give more sequences with it, or try another data.split.seed"
            )
            raise refusal(file, "data.target", text)


def _size(extent: object, n: int) -> int:
    assert isinstance(extent, int | float), "dates and folds are refused by the experiment"
    if isinstance(extent, int):
        return extent
    return int((Decimal(str(extent)) * n).to_integral_value(ROUND_HALF_UP))  # as written


def _check_sizes(sizes: dict[str, int], n: int, file: Path | str, unit: str) -> None:
    if sizes["training"] < 1:
        text = (
            f"no {unit} is left to train on, validation takes {sizes['validation']} and test "
            f"{sizes.get('test', 0)} of {n} {unit}s; make validation or test smaller"
        )
        raise refusal(file, "data.split", text)
    for name in list(sizes)[1:]:
        if sizes[name] < 1:
            text = f"the part needs at least 1 {unit}, got 0 of {n}; make it larger"
            raise refusal(file, f"data.split.{name}", text)


def _check_classes(sizes: dict[str, int], n_classes: int, file: Path | str, unit: str) -> None:
    if n_classes > sizes["training"]:
        text = (
            f"the training part needs a {unit} of each of the {n_classes} classes, got "
            f"{sizes['training']} {unit}s; make validation or test smaller"
        )
        raise refusal(file, "data.split", text)
    for name in list(sizes)[1:]:
        if sizes[name] < n_classes:
            text = f"the part needs a {unit} of each of the {n_classes} classes, got "
            raise refusal(file, f"data.split.{name}", f"{text}{sizes[name]}; make it larger")


def _check_shares(
    taken: np.ndarray,
    rest: np.ndarray,
    left: int,
    part: str,
    split: Split,
    labels: np.ndarray,
    classes: tuple[str, ...],
    file: Path | str,
    unit: str,
) -> None:
    """Refuse a class that has no sequence in the part, or too few for the parts still to draw."""
    counts = np.bincount(labels, minlength=len(classes))
    n_taken = np.bincount(labels[taken], minlength=len(classes))
    n_rest = np.bincount(labels[rest], minlength=len(classes))
    for number, name in enumerate(classes):
        key, extent = f"data.split.{part}", getattr(split, part)
        text = f"its share of the {counts[number]} {unit}s of class {name!r} "
        if n_taken[number] < 1:
            text += f"must be one at least, got none at {extent}; make it larger, or give more"
            raise refusal(file, key, text)
        if n_rest[number] < left:
            text += f"must leave one for each other part, got {n_rest[number]} left at {extent}"
            raise refusal(file, key, f"{text}; make it smaller, or give more")
