"""What the test record keeps of the predictions themselves, for whoever draws them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tuner.data.baselines import Baselines
from tuner.data.dataset import Prepared
from tuner.data.reference import DataRef, SeriesRef
from tuner.results.calibration import Calibration, points_of

__all__ = ["predictions_record"]

_MOST_POINTS = 2000  # that are kept: the journal is read often
_MOST_CLASSES = 60  # of a confusion matrix that people can still read


def predictions_record(
    test: Prepared,
    truth: np.ndarray,
    predicted: list[np.ndarray],
    baselines: Baselines,
    together: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any] | None:
    """Return the truth, the models' predictions and the plain ones, as JSON.

    Args:
        test: the opened test part.
        truth: of its samples, as `DataRef.truth_of` has it.
        predicted: what each of the winner's models says of them.
        baselines: the plain predictions of the test part.
        together: what they say as an ensemble, where they are several.
        calibration: the intervals, where some are asked for.

    Returns:
        Of values, `kind` values: the first step of the first target, of every `every`-th of
        `total` samples: `at` (their names), `truth`, `predicted` (the models' mean), `lower`,
        `upper` and what that `band` is where there is one (of intervals the widest; `bands` are
        the narrower ones, and `predicted` is what they are around), `baselines`, and where there
        are several, the `series` of each. Of classes, `kind` classes: `confusion`, how often a true
        class (row) was taken for another (column), counted over all models. None where no model
        said anything, or where there are more classes than a picture can show.
    """
    (ref,) = test.folds
    if not predicted:
        return None
    if ref.shape.classes:
        return _classes(test, truth, predicted)
    samples = ref.evaluate_samples()
    names = _names(test, ref, samples)
    every = max(1, math.ceil(len(names) / _MOST_POINTS))
    kept = slice(None, None, every)
    models = np.stack([_point(p, ref)[kept] for p in predicted])  # (models, samples)
    if ref.shape.each_step:
        plain = {name: values[kept] for name, values in baselines.predict(samples).items()}
    else:
        plain = baselines.predict(samples[kept])
    if isinstance(ref, SeriesRef):
        del plain["training_mean"]  # a flat line, in the way of all others
    with np.errstate(over="ignore", invalid="ignore"):  # a forecast may be beyond all bounds
        mean = models.mean(axis=0)
    record: dict[str, Any] = {
        "kind": "values",
        "target": test.facts.targets[0],
        "horizon": ref.shape.horizon,
        "models": len(models),
        "total": len(names),
        "every": every,
        "at": names[kept],
        "truth": _numbers(truth[kept, 0, 0]),
        "predicted": _numbers(mean),
        "baselines": {name: _numbers(values[:, 0, 0]) for name, values in plain.items()},
    }
    if calibration is not None:
        record |= _intervals(ref, predicted[0] if together is None else together, calibration, kept)
    elif quantiles := ref.shape.quantiles:
        lowest, highest = (np.mean([p[kept, 0, 0, i] for p in predicted], axis=0) for i in (0, -1))
        record |= {"lower": _numbers(lowest), "upper": _numbers(highest)}
        record["band"] = f"quantiles {quantiles[0]:g} to {quantiles[-1]:g}"
    elif len(models) > 1:
        record |= {"lower": _numbers(models.min(axis=0)), "upper": _numbers(models.max(axis=0))}
        record["band"] = f"range of {len(models)} models"
    if isinstance(ref, SeriesRef):
        of = ref.series_of(samples[kept])
        if len(set(of.tolist())) > 1:
            record["series"] = of.tolist()
    return record


def _names(test: Prepared, ref: DataRef, samples: np.ndarray) -> list[str]:
    """Return what people call the samples, or their steps where every step has its own value."""
    names = [test.name_of(sample) for sample in samples.tolist()]
    if not ref.shape.each_step:
        return names
    lengths = np.diff(ref.load("bounds")[samples])[:, 0].tolist()
    return [f"{name} {i + 1}" for name, n in zip(names, lengths, strict=True) for i in range(n)]


def _intervals(
    ref: DataRef, predicted: np.ndarray, calibration: Calibration, kept: slice
) -> dict[str, Any]:
    """Return the intervals of the first step of the first target, and the forecast within them."""
    assert isinstance(ref, SeriesRef)
    intervals = calibration.ensemble or calibration.single
    points = points_of(predicted, ref)
    scale = intervals.scale_of(ref, ref.evaluate_samples())
    ends = intervals.around(points, ref.transform, scale)
    lower, upper = (end[kept, 0, 0] for end in ends)  # (samples, levels)
    bands = [
        {
            "name": f"{level:g} interval",
            "lower": _numbers(lower[:, i]),
            "upper": _numbers(upper[:, i]),
        }
        for i, level in enumerate(intervals.levels)
    ]
    widest, *others = bands[::-1]
    return {
        "predicted": _numbers(points[kept, 0, 0]),
        "lower": widest["lower"],
        "upper": widest["upper"],
        "band": widest["name"],
        "bands": others,
    }


def _classes(
    test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, Any] | None:
    n = len(test.facts.classes)
    if n > _MOST_CLASSES:
        return None
    counts = np.zeros((n, n), np.int64)
    for probabilities in predicted:
        np.add.at(counts, (truth, probabilities.argmax(axis=1)), 1)
    names = [str(name) for name in test.facts.classes]
    return {
        "kind": "classes",
        "models": len(predicted),
        "total": len(truth),
        "classes": names,
        "confusion": counts.tolist(),
    }


def _point(predicted: np.ndarray, ref: DataRef) -> np.ndarray:
    """Return the first step of the first target; of quantiles the middle one, (samples,)."""
    first = predicted[:, 0, 0]
    quantiles = ref.shape.quantiles
    return np.asarray(first[:, quantiles.index(0.5)] if quantiles else first)


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return the values with the seven digits that a picture can show; JSON has no infinity."""
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in values.tolist()]
