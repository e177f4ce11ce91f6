"""Search spaces: a domain for each hyperparameter or preprocessing key."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from tuner.errors import ExperimentError, InputError
from tuner.experiment.data import PREPARED, Data, canonical_decomposition
from tuner.experiment.messages import first_problem
from tuner.experiment.yaml_files import text_of, value_of
from tuner.pipeline_steps import parse_transform
from tuner.strategies.base import Section, optional

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


_MOST_STEPS = 1e15  # floats tell these apart


def _check_bounds(domain: Any) -> Any:
    """Return a range of numbers whose bounds, step and scale fit together."""
    low, high = domain.low, domain.high
    if low > high:
        rule = "low must be below high"
        raise ExperimentError(rule, got=f"low={low!r}, high={high!r}", remedy="swap them?")
    if domain.log and low <= 0:
        rule = "log needs low above 0"
        raise ExperimentError(rule, got=f"low={low!r}", remedy="raise low or drop log")
    if isinstance(domain.step, float) and high - low > _MOST_STEPS * domain.step:
        got, rule = f"step={domain.step}", f"must be at most {_MOST_STEPS:.0e} steps wide"
        raise ExperimentError(rule, got=got, remedy="raise step, or drop it")
    if domain.log and domain.step not in (None, 1):
        rule = "log and step exclude each other"
        raise ExperimentError(rule, got=f"step={domain.step}", remedy="drop one")
    return domain


class IntDomain(Section):
    """Whole numbers from `low` to `high`, both included."""

    type: Literal["int"]
    low: Annotated[int, Field(strict=True, examples=[8])]
    high: Annotated[int, Field(strict=True, examples=[128])]
    step: Annotated[int, Field(ge=1, strict=True)] = 1
    log: Annotated[bool, Field(strict=True)] = False

    _check = model_validator(mode="after")(_check_bounds)

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
            and (value - self.low) % self.step == 0
        )

    def bounds(self) -> tuple[Any, ...]:
        """Return the outermost values, which every rule about the domain is checked on."""
        return (self.low, self.high)

    def size(self) -> int | None:
        """Return how many values there are; None for a continuum."""
        return (self.high - self.low) // self.step + 1


class FloatDomain(Section):
    """Real numbers from `low` to `high`, both included; on a grid where `step` is given."""

    type: Literal["float"]
    low: Annotated[float, Field(strict=True, allow_inf_nan=False, examples=[0.0])]
    high: Annotated[float, Field(strict=True, allow_inf_nan=False, examples=[0.5])]
    step: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = optional(0.1)
    log: Annotated[bool, Field(strict=True)] = False

    _check = model_validator(mode="after")(_check_bounds)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        if not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-8)

    def bounds(self) -> tuple[Any, ...]:
        """Return the outermost values, which every rule about the domain is checked on."""
        return (self.low, self.high)

    def size(self) -> int | None:
        """Return how many values there are; None for a continuum."""
        if self.low == self.high:
            return 1
        if self.step is None:
            return None
        low, high, step = (Decimal(str(x)) for x in (self.low, self.high, self.step))
        return int((high - low) // step) + 1  # as written: 0.3 is three steps of 0.1


def _as_text(choice: Any) -> Any:
    """Return a list or a mapping, which is a choice of a preparation, as YAML in one line."""
    return text_of(choice) if isinstance(choice, list | dict) else choice


class CategoricalDomain(Section):
    """One of the values listed. Numbers in rising or falling order are searched as ordered.

    The choice of a preparation of the data may be any YAML, and is kept as a text of one line.
    """

    type: Literal["categorical"]
    choices: Annotated[
        list[Annotated[bool | int | float | str, BeforeValidator(_as_text)]],
        Field(min_length=1, examples=[[16, 32, 64]]),
    ]

    @model_validator(mode="after")
    def _check(self) -> CategoricalDomain:
        seen = set[tuple[type, object]]()
        for choice in self.choices:
            value: object = choice
            if isinstance(choice, int | float) and not isinstance(choice, bool):
                value = float(f"{choice:.12g}")  # 1 is 1.0, and 0.1 is 1e-1
            if (type(value), value) in seen:
                got = f"{choice!r} twice"
                raise ExperimentError("must differ", key="choices", got=got, remedy="remove one")
            seen.add((type(value), value))
        return self

    def __contains__(self, value: object) -> bool:
        return any(value == c and type(value) is type(c) for c in self.choices)

    def bounds(self) -> tuple[Any, ...]:
        """Return every choice: each has to obey the rules."""
        return tuple(self.choices)

    def size(self) -> int | None:
        """Return how many values there are."""
        return len(self.choices)


Domain = Annotated[IntDomain | FloatDomain | CategoricalDomain, Field(discriminator="type")]


def canonical_choice(name: str, choice: Any) -> str:
    """Return the text of a choice of a preparation, the same for choices that mean the same.

    Raises:
        ValueError: it is no YAML, or no transform.
    """
    try:
        value = value_of(choice) if isinstance(choice, str) else choice
    except InputError as error:
        raise ExperimentError(error) from None
    if name == "transform":
        value = parse_transform(value)
    return text_of(canonical_decomposition(value) if name == "decompose" else value)


def without_order(name: str, text: str) -> str:
    """Return the text of a choice, the same for those that differ in an order without meaning.

    Columns of the calendar and of lags may stand in any order, steps of a transform not.
    """
    value = value_of(text)
    if name == "calendar" and isinstance(value, list):
        return text_of(sorted(value, key=str))
    if name == "lags" and isinstance(value, dict):
        lags = {k: sorted(v, key=str) if isinstance(v, list) else v for k, v in value.items()}
        return text_of(dict(sorted(lags.items(), key=str)))
    return text


def prepared_with(data: Data, texts: dict[str, str]) -> Data:
    """Return `data` with other preparations, checked.

    Raises:
        ValueError: one is not what the key takes; rule, value and remedy.
    """
    values = {name: value_of(text) for name, text in texts.items()}
    if all(getattr(data, name) == value for name, value in values.items()):
        return data
    try:
        return Data.model_validate(data.model_dump(exclude_unset=True) | values)
    except ValidationError as error:
        problem = first_problem(error)
    raise problem


def _with_canonical_choices(space: dict[str, Domain]) -> dict[str, Domain]:
    """Return the space where each choice of a preparation has one form: [log] is log."""
    return {
        name: _canonical(name, domain)
        if name in PREPARED and isinstance(domain, CategoricalDomain)
        else domain
        for name, domain in space.items()
    }


def _canonical(name: str, domain: CategoricalDomain) -> Domain:
    choices: list[str] = []
    meanings: dict[str, str] = {}
    key = f"{name}.choices"
    for choice in domain.choices:
        try:
            text = canonical_choice(name, choice)
        except ExperimentError as error:
            raise error.with_(key=key) from None
        other = meanings.setdefault(without_order(name, text), text)
        if other != text or text in choices:
            same = f"{other!r} and {text!r}, which are the same"
            got = f"{text!r} twice" if other == text else same
            raise ExperimentError("must differ", key=key, got=got, remedy="remove one")
        choices.append(text)
    return domain.model_copy(update={"choices": choices})


SearchSpace = Annotated[dict[str, Domain], AfterValidator(_with_canonical_choices)]


def space_size(space: SearchSpace) -> int | None:
    """Return the number of configurations in a search space; None where it is infinite."""
    sizes = [domain.size() for domain in space.values()]
    return None if None in sizes else math.prod(s for s in sizes if s is not None)


def to_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of a search space, in the order of the file.

    The order is for people: every strategy gives the same trials whatever the order. Where `high`
    is off the grid of a `step`, it becomes the grid's last value.
    """
    return {name: _to_distribution(domain) for name, domain in space.items()}


def _to_distribution(domain: Domain) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, IntDomain):
        high = domain.high - (domain.high - domain.low) % domain.step
        return IntDistribution(domain.low, high, log=domain.log, step=domain.step)
    if isinstance(domain, FloatDomain):
        last = domain.high
        if domain.step is not None:  # the last value of the grid, in decimals as written
            low, end, step = (Decimal(str(x)) for x in (domain.low, domain.high, domain.step))
            last = float(end - (end - low) % step)
        return FloatDistribution(domain.low, last, log=domain.log, step=domain.step)
    return CategoricalDistribution(domain.choices)
