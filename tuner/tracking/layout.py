"""A study and its trials as MLflow runs: names, tags, params, metrics, limits.

Long texts are cut, and characters that MLflow or a database refuses are replaced. A layout follows
from the study's record alone, so copying twice gives the same runs.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner import __version__
from tuner.coordination.opening import CHANGEABLE
from tuner.experiment import flat
from tuner.jobs import Epoch, Outcome
from tuner.journal.records import Status, StudyRecord, StudyState, TrialRecord
from tuner.journal.storage import TrialKey
from tuner.metrics import short_name

MAX_PARAM, MAX_TAG = 6000, 8000  # characters of a value
_MAX_KEY = 250
_MAX_RUN_NAME = 250
_MAX_TEXTS = 100  # params of one request, and tags
_MAX_ENTITIES = 1000  # points, params and tags of one request together
_MAX_BYTES = 900_000  # of one request; MLflow allows a million
_POINT_BYTES = 600  # of one point in a request, at most
_TEXT_BYTES = 100  # of one param or tag besides its key and value, at most


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    key: str
    value: float
    time_ms: int  # since 1970
    step: int


@dataclass(frozen=True)
class Batch:
    """The content of one request for a run."""

    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points) + len(self.params) + len(self.tags)


def texts(values: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Return params or tags that MLflow accepts, without None; `limit` is of a value's length."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if value is not None:
            found[_key(str(key), found)] = _cut(storable(str(value)), limit)
    return found


def storable(text: str) -> str:
    """Replace characters that databases refuse: lone surrogates and, in PostgreSQL, NUL."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def run_name(name: str) -> str:
    """Return a run name that MLflow accepts."""
    return _cut(storable(name), _MAX_RUN_NAME)


def batches(
    points: Iterable[Point], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[Batch]:
    """Split the content of a run into as few requests as MLflow's limits allow."""
    batch, size = Batch(), 0
    for kind, given in (("params", params), ("tags", tags)):
        for key, value in given.items():
            n_bytes = len(json.dumps(key)) + len(json.dumps(value)) + _TEXT_BYTES
            if len(getattr(batch, kind)) == _MAX_TEXTS or size + n_bytes > _MAX_BYTES:
                yield batch
                batch, size = Batch(), 0
            getattr(batch, kind)[key] = value
            size += n_bytes
    for point in points:
        if len(batch) == _MAX_ENTITIES or size + _POINT_BYTES > _MAX_BYTES:
            yield batch
            batch, size = Batch(), 0
        batch.points.append(point)
        size += _POINT_BYTES
    if len(batch):
        yield batch


def _key(name: str, taken: Container[str]) -> str:
    allowed = re.sub(r"[^\w.\- ]|^\.", "_", name)[:_MAX_KEY] or "_"
    key, n = allowed, 1
    while key in taken:
        n += 1
        key = f"{allowed[: _MAX_KEY - 8]} {n}"
    return key


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class Attempt:
    """A training of a trial in progress; `began` identifies it."""

    began: float  # seconds since 1970
    epochs: tuple[Epoch, ...] = ()


PARENT = "mlflow.parentRunId"
DIGEST = "outcome_digest"
ATTEMPT = "attempt"
STUDY_ROLE = "study"
_STUDY_PARAMS = ("strategy", "budget", "pruner", "objective", "finalists", "task", "seed",
                 "asynchronous")  # fmt: skip
# Tags, because params never change, and these do when a study is resumed.
CHANGING = frozenset(key for key in CHANGEABLE if key.split(".")[0] in _STUDY_PARAMS)
_STUDY_STATUS = {
    StudyState.RUNNING: "RUNNING",
    StudyState.DONE: "FINISHED",
    StudyState.INTERRUPTED: "KILLED",
}
_TRIAL_STATUS = {
    Status.COMPLETE: "FINISHED",
    Status.PRUNED: "KILLED",
    Status.FAILED: "FAILED",
    Status.RUNNING: "RUNNING",
}


@dataclass(frozen=True)
class RunLayout:
    """One MLflow run."""

    name: str
    status: str  # of MLflow
    start_ms: int
    end_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[Point, ...]
    scores: tuple[Point, ...] = ()  # of a study: baselines and test scores


def study_layout(
    record: StudyRecord, state: StudyState, known: Container[tuple[int, float]] = ()
) -> RunLayout:
    """Lay out the parent run of a study, without the best objectives (step, value) in `known`."""
    experiment = record.experiment.to_dict()
    settings = dict(flat({key: experiment[key] for key in _STUDY_PARAMS}))
    params = {key: value for key, value in settings.items() if key not in CHANGING}
    params |= {f"search_space.{k}": json.dumps(v) for k, v in experiment["search_space"].items()}
    tags = {
        "study_id": record.id,
        "study": record.name,
        "role": STUDY_ROLE,
        "state": state,
        "strategy": record.experiment.strategy.name,
        "seed": record.experiment.seed,
    }
    if record.test is not None:
        tags["verdict"] = record.test.verdict
    tags |= {key: value for key, value in settings.items() if key in CHANGING}
    tags |= {f"data_{key}": value for key, value in record.data.items()}
    tags |= {f"version_{library}": version for library, version in record.versions.items()}
    start_s = _created(record)
    ends = [_end(record, t) for t in (*record.trials, *record.finalists) if t.outcome is not None]
    return RunLayout(
        name=run_name(record.name),
        status=_STUDY_STATUS[state],
        start_ms=_ms(start_s),
        end_ms=_ms(max([start_s, *ends])),
        tags=texts(tags, MAX_TAG),
        params=texts(params, MAX_PARAM),
        points=tuple(_best_so_far(record, known)),
        scores=tuple(_scores(record)),
    )


def trial_layout(
    record: StudyRecord,
    trial: TrialRecord,
    parent_run_id: str,
    attempt: Attempt | None = None,
    n_copied: int = 0,
) -> RunLayout:
    """Lay out the child run of a trial.

    Args:
        record: the study.
        trial: one with an outcome, or one that trains.
        parent_run_id: of the study's run.
        attempt: the training of a trial without an outcome.
        n_copied: epochs that the run has already; they are left out.
    """
    outcome, strategy = trial.outcome, record.experiment.strategy.name
    if outcome is not None:
        epochs, end_s = outcome.history, _end(record, trial)
        start_s = end_s - outcome.seconds
    else:
        assert attempt is not None
        epochs, start_s, end_s = attempt.epochs, attempt.began, attempt.epochs[-1].time
    metric = short_name(record.experiment.objective.metric)
    points = [*_epochs(epochs[n_copied:], metric), *_outcome_points(outcome, end_s)]
    tags = {
        PARENT: parent_run_id,
        "study_id": record.id,
        "study": record.name,
        "role": trial.role,
        "trial": trial.number,
        "state": trial.status,
        "strategy": strategy,
        "seed": trial.seed,
        "generation": trial.generation,
        "individual": trial.individual,
        "repeat_of": trial.repeat_of,
        "group": ", ".join(map(str, trial.group)) or None,
        "configuration": trial.configuration,
        "repeat": trial.repeat,
        "failure_reason": outcome.reason if outcome and trial.status is Status.FAILED else None,
        ATTEMPT: attempt_tag(epochs),
        DIGEST: outcome_digest(outcome) if outcome else None,
    }
    # The width of every layer besides the list of them: a chart's axis takes numbers.
    params = {**record.experiment.configuration(dict(trial.params)), **trial.params}
    # Params are columns of the table of runs from the start; tags are not.
    params |= {"trial": trial.number, "study": record.name, "strategy": strategy}
    repeated = "" if trial.repeat_of is None else f" = {trial.repeat_of}"
    return RunLayout(
        name=run_name(f"{trial.key.name}{repeated} of {record.name}"),
        status=_TRIAL_STATUS[trial.status],
        start_ms=_ms(start_s),
        end_ms=_ms(end_s),
        tags=texts(tags, MAX_TAG),
        params=texts(params, MAX_PARAM),
        points=tuple(points),
    )


def _outcome_points(outcome: Outcome | None, end_s: float) -> Iterator[Point]:
    """Yield the objective and costs at step 0, of which MLflow draws bars by trial."""
    if outcome is None or outcome.objective is None:
        return
    values = {"objective": _finite(outcome.objective), "training_seconds": outcome.seconds}
    if outcome.n_weights is not None and outcome.latency_ms is not None:  # not in older journals
        values |= {"weights": outcome.n_weights, "latency_ms": outcome.latency_ms}
    for key, value in values.items():
        yield Point(key, value, _ms(end_s), 0)


def attempt_tag(epochs: Sequence[Epoch]) -> str | None:
    """Return the identity of a training: the end of its first epoch."""
    return str(_ms(epochs[0].time)) if epochs else None


def outcome_digest(outcome: Outcome) -> str:
    """Return a digest of an outcome."""
    history = [(e.train_loss, e.val_loss, e.metric, e.time) for e in outcome.history]
    facts = [outcome.state, outcome.objective, outcome.finished_at, outcome.reason, history]
    return text_digest(json.dumps(facts))


def record_digest(record: StudyRecord, outcomes: Mapping[TrialKey, str | None]) -> str:
    """Return a digest of a study with the digests of its trials' outcomes.

    Equal digests mean equal reports and plots.
    """
    facts = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    trials = [
        (
            (t.role, t.number),
            *(t.params, t.seed, t.repeat_of, t.configuration, t.repeat, outcomes.get(t.key)),
        )
        for t in (*facts.pop("trials"), *facts.pop("finalists"))
    ]
    facts["experiment"] = record.experiment.to_dict()
    return text_digest(json.dumps([__version__, facts, trials], default=str))


def text_digest(content: str | bytes) -> str:
    """Return the first 16 characters of a SHA-256."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]


def _epochs(history: Iterable[Epoch], metric: str) -> Iterator[Point]:
    for e in history:
        values = (("train_loss", e.train_loss), ("val_loss", e.val_loss), (metric, e.metric))
        for key, value in values:
            yield Point(key, _finite(value), _ms(e.time), e.epoch)
        if e.fold_score is not None:
            yield Point("fold_score", _finite(e.fold_score), _ms(e.time), e.fold)


def _best_so_far(record: StudyRecord, known: Container[tuple[int, float]] = ()) -> Iterator[Point]:
    """Yield the best objective by trial number up to the first running one: they never change."""
    best: float | None = None
    time_s = 0.0
    for trial in record.trials:
        if trial.outcome is None:
            return
        time_s, value = max(time_s, _end(record, trial)), trial.value
        if value is not None and math.isfinite(value):
            best = value if best is None else min(best, value, key=lambda v: record.sign * v)
        if best is not None and (trial.number, best) not in known:
            yield Point("best_objective", best, _ms(time_s), trial.number)


def _scores(record: StudyRecord) -> Iterator[Point]:
    """Yield the baselines' validation scores, and all test scores."""
    for name, score in record.baselines.items():
        if score is not None and math.isfinite(score):
            yield Point(f"baseline_{name}", score, _ms(_created(record)), 0)
    test = record.test
    if test is None:
        return
    opened_ms = _ms(dt.datetime.fromisoformat(test.opened_at or record.created).timestamp())
    for prefix, scores in (("test", test), ("test_refit", test.refit)):
        if scores is None:
            continue
        tested = {
            f"{prefix}_score": scores.mean,
            f"{prefix}_ensemble": scores.ensemble,
            f"{prefix}_default": scores.default.mean if scores.default else None,
        }
        tested |= {f"{prefix}_baseline_{name}": score for name, score in scores.baselines.items()}
        for key, value in tested.items():
            if value is not None and math.isfinite(value):
                yield Point(key, value, opened_ms, 0)


def _created(record: StudyRecord) -> float:
    return dt.datetime.fromisoformat(record.created).timestamp()


def _end(record: StudyRecord, trial: TrialRecord) -> float:
    """Return the end of a trial; of a lost one its start."""
    if trial.outcome is not None and trial.outcome.finished_at:
        return trial.outcome.finished_at
    return trial.asked_at.timestamp() if trial.asked_at else _created(record)


def _finite(value: float) -> float:
    return math.nan if math.isinf(value) else value  # MLflow would store 1.8e308


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
