"""The key `decompose`: how each window is split into parts that a model reads side by side."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from tuner.experiment.model import Section

__all__ = ["Decompose", "Decomposition", "canonical_decomposition"]

_NEEDS = {"moving_average": "length", "emd": "components"}
_SAID = {"length": 24, "components": 3}


class Decomposition(Section):
    """How the targets' columns are split within each window, which knows of no other row."""

    kind: Literal["moving_average", "emd"]
    """Trend and remainder by a moving average, or intrinsic mode functions and what they leave."""
    length: Annotated[int, Field(ge=2, le=100_000, strict=True)] | None = Field(None, examples=[24])
    """Of moving_average: rows of the average, at most the window, whose ends are repeated."""
    components: Annotated[int, Field(ge=2, le=16, strict=True)] | None = Field(None, examples=[3])
    """Of emd: parts, the fastest first; the last one is what is left over."""

    @model_validator(mode="after")
    def _check(self) -> Decomposition:
        for kind, key in _NEEDS.items():
            value = getattr(self, key)
            if kind == self.kind and value is None:
                raise ValueError(f"{key}: is required by {kind}; write `{key}: {_SAID[key]}`, say")
            if kind != self.kind and value is not None:
                raise ValueError(f"{key}: is of {kind}, got {value} with {self.kind}; remove it")
        return self


def _check_written(value: Any) -> Any:
    """A kind alone says too little."""
    if isinstance(value, str) and value in _NEEDS:
        key = _NEEDS[value]
        written = f"{{kind: {value}, {key}: {_SAID[key]}}}"
        raise ValueError(f"{value} needs {key}, got none; write {written}, say")
    return value


Decompose = Annotated[
    Annotated[Literal["none"], Tag("(none)")] | Annotated[Decomposition, Tag("(decomposition)")],
    Discriminator(lambda v: "(decomposition)" if isinstance(v, dict | Decomposition) else "(none)"),
    BeforeValidator(_check_written),
]


def canonical_decomposition(value: Any) -> Any:
    """Return the keys of a decomposition in one order, so that equal choices are equal."""
    if not isinstance(value, dict):
        return value
    return {key: value[key] for key in Decomposition.model_fields if key in value} | value
