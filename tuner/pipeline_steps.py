"""Steps that an experiment declares and a model folder keeps: the dialect of a file, transforms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tuner.errors import ExperimentError, nearest

# The largest magnitude of a value: float32 still holds it, and float64 its square.
LARGEST = 1e30

# Keys about the lines of one file, which need not hold for another file of its kind.
LINE_KEYS = ("skip_rows", "unit_row", "skip_footer")


@dataclass(frozen=True)
class Dialect:
    """How a table is written; None where it is not declared, but detected in the file."""

    encoding: str | None = None  # a codec of Python
    separator: str | None = None  # between columns: one character, or whitespace
    decimal: str | None = None  # point or comma of a number
    thousands: str | None = None  # between its groups of three digits
    comment: str | None = None  # with which a line begins that is not read
    skip_rows: int | None = None  # lines above the names of the columns
    unit_row: bool | None = None  # whether the line below the names holds units
    skip_footer: int | None = None  # lines below the rows, blank ones not counted
    missing_values: tuple[str, ...] | None = None  # words that stand for no value
    units: tuple[str, ...] | None = None  # written before or behind numbers
    date_format: str | None = None  # of the time column: as strptime has it, or excel
    timezone: str | None = None  # in which times without an offset were written
    time_columns: tuple[str, ...] | None = None  # that are joined into the time column
    sort: bool | None = None  # whether rows are brought into the order of time
    drop_duplicates: bool | None = None  # whether exact copies of rows are dropped

    @classmethod
    def of(cls, keys: dict[str, Any]) -> Dialect:
        """Return the dialect that keys of `data.read` declare."""
        held: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in keys.items()}
        return cls(**held)

    def to_dict(self) -> dict[str, Any]:
        """Return the keys that a plain CSV file does not need, as YAML and JSON hold them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None and (key, value) != ("separator", ",")
        }

    def filled(self, found: Dialect) -> Dialect:
        """Return this dialect with detected values where it declares none."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(found, **{key: value for key, value in own.items() if value is not None})

    def without_lines(self) -> Dialect:
        """Return the part that holds for every file of its kind."""
        return replace(self, **dict.fromkeys(LINE_KEYS))


POINTWISE = ("log", "box_cox")  # steps on each value by itself
SEASONAL = "seasonal_difference"
_NAMES = ("none", *POINTWISE, "difference")
_MOST_ROWS = 100_000
_MOST_STEPS = 8
Step = str | dict[str, int]  # one of `log`, `box_cox`, `difference`, or `{seasonal_difference: n}`


def steps_of(value: Step | list[Step]) -> list[Step]:
    """Return the steps of a transform in order; no step for `none`."""
    steps = value if isinstance(value, list) else [value]
    return [step for step in steps if step != "none"]


def differences_of(value: Step | list[Step]) -> list[int]:
    """Return how many rows back each of a transform's differences reaches, in order."""
    rows = {"difference": 1} | dict.fromkeys(POINTWISE, 0)
    found = [step[SEASONAL] if isinstance(step, dict) else rows[step] for step in steps_of(value)]
    return [n for n in found if n]


def is_transform(value: Any) -> bool:
    """Return whether a value is a transform in its shortest form."""
    try:
        return bool(parse_transform(value) == value)
    except (TypeError, ValueError):
        return False


def parse_transform(value: Any) -> Any:
    """Return a transform in its shortest form: [log] is log, and [] is none.

    Raises:
        ExperimentError: it is no transform.
    """
    given = value if isinstance(value, list) else [value]
    steps = steps_of([_parse_step(step) for step in given])
    if len(steps) > _MOST_STEPS:
        rule = f"must have at most {_MOST_STEPS} steps"
        raise ExperimentError(rule, got=len(steps), remedy="leave some out")
    pointwise = [step for step in steps if step in POINTWISE]
    if len(pointwise) > 1:
        rule = "log and box_cox straighten the same growth"
        raise ExperimentError(rule, got=" and ".join(pointwise), remedy="keep one")
    if pointwise and steps[0] != pointwise[0]:
        rule = f"{pointwise[0]} cannot follow a difference, whose values may be negative"
        raise ExperimentError(rule, got=f"it after {_written(steps[0])}", remedy="write it first")
    return steps if len(steps) > 1 else steps[0] if steps else "none"


def _parse_step(step: Any) -> Step:
    if isinstance(step, dict):
        if list(step) != [SEASONAL]:
            got = ", ".join(map(str, step)) or "nothing"
            rule = f"has the key {SEASONAL} alone"
            raise ExperimentError(rule, got=got, remedy=f"write {{{SEASONAL}: 12}}")
        rows = step[SEASONAL]
        if isinstance(rows, bool) or not isinstance(rows, int) or not 2 <= rows <= _MOST_ROWS:
            rule = f"{SEASONAL} needs the rows of a season, from 2 to {_MOST_ROWS}"
            remedy = f"write {{{SEASONAL}: 12}}, or difference"
            raise ExperimentError(rule, got=repr(rows), remedy=remedy)
        return {SEASONAL: rows}
    if step == SEASONAL:
        rule = f"{SEASONAL} needs the rows of a season"
        raise ExperimentError(rule, got="none", remedy=f"write {{{SEASONAL}: 12}}")
    if not isinstance(step, str) or step not in _NAMES:
        hint = nearest(str(step).lower(), [*_NAMES, SEASONAL])
        rule = "must be a transform, or a list of several"
        raise ExperimentError(rule, got=repr(step), remedy=hint)
    return step


def _written(step: Step) -> str:
    return step if isinstance(step, str) else SEASONAL
