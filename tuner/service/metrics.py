"""Figures of the service as text for Prometheus.

The format is version 0.0.4, https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tuner.service.guard import Answered
from tuner.service.problems import METHODS

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTED = {
    "tuner_asks_total": "Trials that clients of external studies have been given.",
    "tuner_tells_total": "Results that clients of external studies have told.",
}
"""What routes count, by name."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds of the durations that are counted, in seconds."""


@dataclass(frozen=True)
class Metric:
    """A figure, or one for each combination of labels."""

    name: str
    help: str
    kind: str
    samples: Iterable[tuple[Mapping[str, str], float]]


def gauge(name: str, help: str, values: float | Mapping[str, float], label: str = "") -> Metric:
    """Return figures that rise and fall: one, or one for each value of a label."""
    if isinstance(values, Mapping):
        return Metric(name, help, "gauge", [({label: k}, v) for k, v in values.items()])
    return Metric(name, help, "gauge", [({}, values)])


@dataclass
class _Durations:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self.total_s += seconds


class Metrics:
    """Counts answers, and asks others for their figures when it is read.

    All is called in the loop. No figure has the name of an owner or a study.
    """

    def __init__(self) -> None:
        self._answers = Counter[tuple[str, str, int]]()
        self._durations: dict[str, _Durations] = {}
        self._counted = dict.fromkeys(COUNTED, 0)
        self._sources: list[Callable[[], Iterable[Metric]]] = []

    def __call__(self, request: Answered) -> None:
        """Count an answer."""
        method = request.method if request.method in METHODS else "other"  # a client may invent one
        self._answers[method, request.route, request.status] += 1
        self._durations.setdefault(request.route, _Durations()).add(request.seconds)

    def count(self, name: str, n: int = 1) -> None:
        """Add to one of `COUNTED`."""
        self._counted[name] += n

    def add_source(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Have a function asked for metrics when they are read."""
        self._sources.append(source)

    def text(self) -> str:
        """Return all metrics."""
        counted = [
            Metric(name, help, "counter", [({}, self._counted[name])])
            for name, help in COUNTED.items()
        ]
        found = [self._requests(), *counted, *(m for source in self._sources for m in source())]
        lines = [line for metric in found for line in _lines(metric)]
        return "".join(f"{line}\n" for line in [*lines, *self._histogram()])

    def _requests(self) -> Metric:
        samples = [
            ({"method": method, "route": route, "status": str(status)}, float(count))
            for (method, route, status), count in sorted(self._answers.items())
        ]
        return Metric("tuner_http_requests_total", "Answers to requests.", "counter", samples)

    def _histogram(self) -> Iterator[str]:
        name = "tuner_http_request_duration_seconds"
        yield from _head(name, "Time until the end of an answer.", "histogram")
        for route, durations in sorted(self._durations.items()):
            n = 0
            for bound, count in zip((*BUCKETS, math.inf), durations.counts, strict=True):
                n += count
                yield _line(f"{name}_bucket", {"route": route, "le": _number(bound)}, n)
            yield _line(f"{name}_sum", {"route": route}, durations.total_s)
            yield _line(f"{name}_count", {"route": route}, n)


def _lines(metric: Metric) -> Iterator[str]:
    yield from _head(metric.name, metric.help, metric.kind)
    for labels, value in metric.samples:
        yield _line(metric.name, labels, value)


def _head(name: str, help: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    written = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{written}}} {_number(value)}" if written else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else f"{value:.10g}"
