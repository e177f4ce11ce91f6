"""The figures of studies, workers and streams that /metrics shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuner.jobs import OutcomeState
from tuner.service.guard import Condition
from tuner.service.metrics import Metric, gauge
from tuner.service.studies import Kind, State

if TYPE_CHECKING:
    from tuner.service.service import Service


def figures(service: Service | None, condition: Condition) -> Iterator[Metric]:
    """Yield the metrics of a service; of one that does not work yet, those of the server alone."""
    is_ready = condition.not_ready is None
    yield gauge("tuner_ready", "1 if the service takes requests, 0 if not.", int(is_ready))
    answers = list(condition.open.values())
    yield gauge("tuner_http_requests_open", "Requests that are open.", len(answers))
    n_streams = sum(answer.is_stream for answer in answers)
    yield gauge("tuner_event_streams", "Event streams that are open.", n_streams)
    if service is None or not is_ready:
        return
    usage, counts = service.pool.usage, service.studies.counts()
    yield gauge("tuner_workers", "Workers.", usage.n_workers)
    yield gauge("tuner_workers_busy", "Workers that have a trial.", usage.busy)
    yield gauge("tuner_trials_waiting", "Trials that wait for a worker.", usage.waiting)
    ended = service.tables.ended
    done = [({"state": state}, float(ended[state])) for state in OutcomeState]
    help = "Trials that have ended since the start, of searches and external studies."
    yield Metric("tuner_trials_total", help, "counter", done)
    samples = [
        ({"kind": kind, "state": state}, float(counts[kind, state]))
        for kind in Kind
        for state in State
    ]
    yield Metric("tuner_studies", "Studies by kind and state.", "gauge", samples)
    n_queued = float(sum(counts[kind, State.QUEUED] for kind in Kind))
    yield gauge("tuner_queue_studies", "Studies that are queued.", n_queued)
