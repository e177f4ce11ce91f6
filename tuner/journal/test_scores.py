"""The record of an evaluation on the test set, as a study's journal holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Scores:
    """The scores of all trainings of one configuration."""

    scores: Sequence[float]  # () if a forecast is not finite
    mean: float | None
    std: float | None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read an object of JSON; keys without a field of the class are ignored."""
        known = {name: raw[name] for f in fields(cls) if (name := f.name) in raw}
        return cls(**{"scores": (), "mean": None, "std": None} | known)


@dataclass(frozen=True)
class DefaultScores(Scores):
    """The untuned default's scores on the test set."""

    name: str
    is_winner: bool
    params: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None  # of a refit
    failed: str | None = None  # why its refit failed


@dataclass(frozen=True)
class Coverage:
    """How many test rows an interval covers."""

    level: float  # that was asked for, in (0, 1)
    coverage: float  # share of the rows within the interval, in [0, 1]
    width: float | None  # mean, in the units of the target


@dataclass(frozen=True)
class ModelScores(Scores):
    """The scores of the winner's models, of their ensemble, and of what they must beat."""

    ensemble: float | None = None
    default: DefaultScores | None = None
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  # baselines, with the reason
    intervals: Sequence[Coverage] = ()  # of the first model
    ensemble_intervals: Sequence[Coverage] = ()
    epochs: int | None = None  # of a refit

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read an object of JSON; older records lack keys."""
        default = raw.get("default")
        read: dict[str, Any] = {"default": default and DefaultScores.from_json(default)}
        for key in ("intervals", "ensemble_intervals"):
            read[key] = tuple(Coverage(**each) for each in raw.get(key) or ())
        return super().from_json({**raw, "baselines": raw.get("baselines") or {}, **read})


@dataclass(frozen=True)
class TestScore(ModelScores):
    """One evaluation on the test set."""

    __test__: ClassVar[bool] = False  # pytest takes it for no test

    metric: str = ""
    opened_at: str | None = None  # ISO 8601, UTC
    after_trials: int = 0
    configuration: int | None = None  # trial number of the winner then; None: the untuned default
    repeats: int = 0  # models of the winner
    finalists: Sequence[int] | None = None  # top and repeats of the experiment then
    rows: int = 0
    first: str | None = None  # time of the first row
    last: str | None = None
    refit: ModelScores | None = None
    refit_failed: str | None = None
    parts: Sequence[Mapping[str, Any]] = ()  # name, count, unit, first, last of every data split
    by: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)  # for plots; {} for none
    verdict: str | None = None
    retrained_differently: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read the record of a journal; older records lack keys."""
        refit = raw.get("refit") or {}
        read: dict[str, Any] = {
            "repeats": raw.get("repeats", len(raw.get("scores", ()))),
            "first": raw.get("from"),
            "last": raw.get("to"),
            "by": raw.get("by") or {},
            "parts": raw.get("parts") or (),
            "predictions": raw.get("predictions") or {},
            "refit": ModelScores.from_json(refit) if refit and "failed" not in refit else None,
            "refit_failed": refit.get("failed"),
            "raw": raw,
        }
        return super().from_json({**raw, **read})

    def to_json(self) -> dict[str, Any]:
        """Return the record as the journal holds it."""
        return dict(self.raw)

    @property
    def judged(self) -> ModelScores:
        """The scores that the verdict is about: those of the refitted models if there are any.

        The default and the baselines are refitted as well then.
        """
        return self.refit or self
