"""The specification of an external study: its models train elsewhere, and clients ask and tell."""

from __future__ import annotations

import copy
import math
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from tuner.errors import ExperimentError, SpaceError
from tuner.experiment.data import Count
from tuner.experiment.experiment import located
from tuner.experiment.messages import problems_of, shown
from tuner.experiment.schema import ExperimentName, NoPruner, Pruner, Strategy, why_reserved
from tuner.experiment.space import (
    CategoricalDomain,
    Domain,
    FloatDomain,
    space_size,
    to_distributions,
)
from tuner.strategies.base import Section, optional
from tuner.strategies.optuna_strategies import TPEStrategy

_LARGEST_INT = 2**53
"""Whole numbers up to this one are the same in every language that reads JSON."""

_MOST_CHOICES = 10_000
_MOST_CHARACTERS = 1_000  # in the text of a choice

_SOURCE = "external study"


def check_text(text: str) -> str:
    """Return a text that JSON, databases and terminals can hold."""
    if any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in text):
        rule = "must hold no control characters"
        raise ExperimentError(rule, got=shown(text), remedy="remove them")
    return text


_LABEL_CHARACTERS = 200

Label = Annotated[
    str, Field(min_length=1, max_length=_LABEL_CHARACTERS), AfterValidator(check_text)
]


def _check_names(space: dict[str, Any]) -> dict[str, Any]:
    """Return the search space, with names of parameters that are not empty and not too long."""
    for name in space:
        if not 0 < len(name) <= _LABEL_CHARACTERS:
            rule = f"names of parameters must have 1 to {_LABEL_CHARACTERS} characters"
            raise ExperimentError(rule, got=shown(name), remedy="rename it")
        check_text(name)
    return space


def _check_study_name(name: str) -> str:
    if rule := why_reserved(name):
        raise ExperimentError(rule, got=shown(name), remedy="give another")
    return name


def _only_scalars(raw: Any) -> Any:
    """Refuse choices that are lists or mappings: an experiment file would make texts of them."""
    choices = raw.get("choices") if isinstance(raw, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, list | dict):
            rule, remedy = "must be numbers, texts, true or false", "name it by a text"
            raise ExperimentError(rule, key="choices", got=shown(choice), remedy=remedy)
        if isinstance(choice, str) and len(choice) > _MOST_CHARACTERS:
            rule = f"must have at most {_MOST_CHARACTERS} characters each"
            raise ExperimentError(rule, key="choices", got=shown(choice), remedy="shorten it")
    return raw


def _check_domain(domain: Any) -> Any:
    """Return a domain whose values every client can read."""
    if isinstance(domain, CategoricalDomain):
        if len(domain.choices) > _MOST_CHOICES:
            rule, got = f"must be at most {_MOST_CHOICES:,}", f"{len(domain.choices):,}"
            raise ExperimentError(rule, key="choices", got=got, remedy="write a range, say")
        for choice in domain.choices:
            if isinstance(choice, str):
                check_text(choice)
    if isinstance(domain, FloatDomain) and not math.isfinite(domain.high - domain.low):
        rule, got = "the range must fit in a float", f"low={domain.low!r}, high={domain.high!r}"
        raise ExperimentError(rule, got=got, remedy="make it narrower")
    for value in domain.bounds():
        if isinstance(value, float) and not math.isfinite(value):
            rule = "must be finite numbers"
            raise ExperimentError(rule, key="choices", got=value, remedy="write it as text")
        if isinstance(value, int) and abs(value) > _LARGEST_INT:
            rule = "whole numbers must lie within 2**53 of 0"
            raise ExperimentError(rule, got=value, remedy="write them as float or as text")
    return domain


_Domain = Annotated[Domain, BeforeValidator(_only_scalars), AfterValidator(_check_domain)]


class ExternalSpec(Section):
    """An external study: the search space and the strategy; a client trains and scores."""

    name: Annotated[ExperimentName, AfterValidator(_check_study_name)]
    """The name of the study."""
    space: Annotated[
        dict[str, _Domain],
        AfterValidator(_check_names),
        Field(
            min_length=1,
            max_length=1000,
            examples=[{"x": {"type": "float", "low": 0.0, "high": 1.0}}],
        ),
    ]
    """The search space: a domain for each parameter, as `search_space` of an experiment."""
    strategy: Strategy = TPEStrategy()
    """Proposes the configurations."""
    direction: Literal["minimize", "maximize"]
    """Whether the smaller or the larger value is better."""
    metric: Label = "value"
    """Its name, for tables and plots."""
    seed: Annotated[Count, Field(ge=0, le=2**32 - 1)] = 0
    trials: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(100)
    """Configurations to train, however they end; null for as many as clients ask for."""
    lease_s: Annotated[float, Field(ge=1, le=86_400, strict=True)] = 60.0
    """Seconds after which a trial whose client has not reported is given out again."""
    asynchronous: Annotated[bool, Field(strict=True)] = False
    """Whether trials are told as they end: no client waits, and no two searches are alike."""
    pruner: Pruner = NoPruner()
    """Stops bad trials by the values that clients report at each step."""
    steps: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(100)
    """Most steps that a client reports of a trial; hyperband needs it."""
    distinct: Annotated[bool, Field(strict=True)] = True
    """Whether a configuration that repeats takes the outcome of the first, and is not given out."""
    retries: Annotated[Count, Field(ge=0, le=1000)] = 5
    """How often a trial is given out again after its client vanished; then it has failed."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pruner.name == "wilcoxon":
            rule, remedy = "wilcoxon compares folds", "write name: median, say"
            got = "no rolling origins"
            raise ExperimentError(rule, key="pruner.name", got=got, remedy=remedy)
        hyperband = self.pruner.name == "hyperband" or (
            self.pruner.name == "patient" and self.pruner.wrapped.name == "hyperband"
        )
        if hyperband and self.steps is None:
            rule, remedy = "is required by hyperband", "write the most steps of a trial"
            raise ExperimentError(rule, key="steps", remedy=remedy)
        size = space_size(self.space)
        n_trials = min((n for n in (self.trials, size) if n is not None), default=None)
        object.__setattr__(self, "strategy", self.strategy.paced(n_trials))
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Check a specification that is a mapping.

        Args:
            values: the keys of this class, in nested mappings. It is not changed.

        Raises:
            ExperimentError: a value breaks a rule, or the strategy cannot search this space.
        """
        if not isinstance(values, Mapping):
            rule, got = "must be a mapping of keys to values", f"a {type(values).__name__}"
            remedy = "write {'name': 'digits', 'space': {...}}, say"
            raise ExperimentError(rule, where=_SOURCE, got=got, remedy=remedy)
        raw = {str(key): copy.deepcopy(value) for key, value in values.items()}
        try:
            spec = cls.model_validate(raw)
        except ValidationError as error:
            raise located(problems_of(error, cls, raw), _SOURCE) from None
        try:
            spec.strategy.make_sampler(to_distributions(spec.space), spec.seed, spec.trials)
        except SpaceError as error:
            key = (error.key or "space").replace("search_space", "space")
            raise error.with_(where=_SOURCE, key=key) from None
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as a mapping of JSON values, defaults included.

        `from_dict` reads it as this one.
        """
        return self.model_dump(mode="json", exclude_none=True)
