"""The strict model that every block of an experiment file is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from tuner.errors import ExperimentError

__all__ = ["Section", "broken_rule", "check_order", "optional"]

_RULES = {
    "missing": "is required",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "is_instance_of": "must be a {class}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have {max_length} or fewer items",
    "greater_than": "must be above {gt:.15g}",
    "greater_than_equal": "must be at least {ge:.15g}",
    "less_than": "must be below {lt:.15g}",
    "less_than_equal": "must be at most {le:.15g}",
    "literal_error": "must be {expected}",
}
"""The rules by pydantic's type of error."""


class Section(BaseModel):
    """A block of an experiment file; immutable, and strict about its keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


def optional(example: Any) -> Any:
    """Return a field that is None by default, and whose messages suggest the example."""
    return Field(None, examples=[example])


def broken_rule(details: ErrorDetails) -> str:
    """Return the rule that a value breaks; pydantic's message for a type of error without one."""
    rule = _RULES.get(details["type"])
    return details["msg"] if rule is None else rule.format(**details.get("ctx", {}))


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
