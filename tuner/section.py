"""The strict model that every block of an experiment file is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tuner.errors import ExperimentError

__all__ = ["Section", "check_order"]


class Section(BaseModel):
    """A block of an experiment file; immutable, and strict about its keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


def check_order(options: Section, lower: str, upper: str) -> None:
    """Raise ValueError unless `lower` is at most `upper`, naming a key that was written."""
    low, high = getattr(options, lower), getattr(options, upper)
    if low <= high:
        return
    if lower not in options.model_fields_set:
        rule = f"must not be below {lower}, {low} (its default)"
        raise ExperimentError(rule, key=upper, got=high, remedy=f"give {lower} too, {high} at most")
    unwritten = "" if upper in options.model_fields_set else " (its default)"
    rule = f"must not be above {upper}, {high}{unwritten}"
    remedy = f"give a smaller number, or a larger {upper}"
    raise ExperimentError(rule, key=lower, got=low, remedy=remedy)
