"""The metrics by name: what they measure, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Tag

from tuner.errors import ExperimentError
from tuner.experiment.fields import is_own, parse_own
from tuner.user_code import is_reference

__all__ = ["COSTS", "METRICS", "Metric", "MetricName", "short_name"]

_WAYS = ("minimize", "maximize")


@dataclass(frozen=True)
class Metric:
    """A score of predictions on rows or sequences that were not trained on."""

    of: Literal["values", "quantiles", "classes", "texts", "any"]
    maximize: bool = False
    definition: str | None = None
    """Of one's own: `package.module:function`, or an expression of truth and forecast."""

    @property
    def sign(self) -> float:
        """What a score is multiplied with so that less is better."""
        return -1.0 if self.maximize else 1.0


class _Metrics(dict[str, Metric]):
    """The metrics by name; one of one's own is named as it stands in the file."""

    def __contains__(self, name: object) -> bool:
        way, _, definition = str(name).partition(" ")
        return super().__contains__(name) or (way in _WAYS and bool(definition))

    def __missing__(self, name: str) -> Metric:
        way, _, definition = name.partition(" ")
        if way not in _WAYS or not definition:
            raise KeyError(name)
        of: Literal["any", "values"] = "any" if is_reference(definition) else "values"
        return Metric(of, way == "maximize", definition)


METRICS = _Metrics(
    rmse=Metric("values"),
    mae=Metric("values"),
    mape=Metric("values"),
    smape=Metric("values"),
    mase=Metric("values"),
    r2=Metric("values", maximize=True),
    pinball=Metric("quantiles"),
    accuracy=Metric("classes", maximize=True),
    f1=Metric("classes", maximize=True),
    auroc=Metric("classes", maximize=True),
    cross_entropy=Metric("classes"),
    exact_match=Metric("texts", maximize=True),
)

COSTS = {
    "weights": "numbers that were learned",
    "seconds": "of training",
    "latency": "milliseconds of predicting one sample, in torch",
}
"""What a model costs, of which less is better: a second objective beside a metric."""


def short_name(metric: str) -> str:
    """Return a name without signs: tuner's own, the function's, or `own_metric`."""
    definition = METRICS[metric].definition
    if definition is None:
        return metric
    return definition.rpartition(":")[2] if is_reference(definition) else "own_metric"


def _check_own(value: Any) -> str:
    way, _, rest = " ".join(str(value).split()).partition(" ")
    if way not in _WAYS:
        rule = "must say which way is better"
        raise ExperimentError(rule, got=repr(value), remedy=f"write 'minimize {value}'")
    return f"{way} {parse_own(rest)}"


def _is_own(value: Any) -> bool:
    return isinstance(value, str) and (value.partition(" ")[0] in _WAYS or is_own(value))


MetricName = Annotated[
    Annotated[
        Literal[
            "rmse", "mae", "mape", "smape", "mase", "r2",
            "pinball",
            "accuracy", "f1", "auroc", "cross_entropy",
            "exact_match",
        ],
        Tag("(metric)"),
    ]
    | Annotated[str, BeforeValidator(_check_own), Tag("(own)")],
    Discriminator(lambda v: "(own)" if _is_own(v) else "(metric)"),
]  # fmt: skip
"""A metric of tuner's, or `minimize` or `maximize` and one's own."""
