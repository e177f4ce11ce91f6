"""External studies: create one, ask for trials, report, tell, and give trials back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tuner.coordination.ask_tell import AskTell
from tuner.coordination.leases import Answer, Told
from tuner.errors import ExperimentError
from tuner.experiment.external import Label, check_text
from tuner.experiment.schema import STUDY_BYTES
from tuner.service import threads
from tuner.service.access import Writer
from tuner.service.external import ExternalStudies
from tuner.service.metrics import Metrics

router = APIRouter(prefix="/v1/external-studies", tags=["external studies"])

T = TypeVar("T")

_RETRY_S = "1"
"""Seconds that a client is advised to wait where there is nothing to ask."""

Name = Annotated[str, Path(min_length=1, max_length=STUDY_BYTES)]
Number = Annotated[int, Path(ge=0, lt=1 << 31, description="Of the trial.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key gives the same client the same trials again.",
    ),
]
Value = Annotated[float, Field(strict=True)] | Literal["NaN", "Infinity", "-Infinity"]
"""JSON has no numbers that are not finite; these texts stand for them."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class NewStudy(_Body):
    """An external study; see the documentation for each key's values."""

    # What breaks a rule is said by `ExternalSpec`, all of it at once.
    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "additionalProperties": False,
            "required": ["name", "space", "direction"],
        },
    )

    name: Any = None
    space: Any = None
    """A domain for each parameter, as in `search_space` of an experiment."""
    direction: Any = None
    """`minimize` or `maximize`."""
    strategy: Any = None
    """`name` and options; tpe by default."""
    metric: Any = "value"
    seed: Any = 0
    trials: Any = None
    """The budget; by default the owner's limit, 100,000 unless the service has another."""
    lease_s: Any = 60.0
    """Seconds, 1 to 86400, after which a trial without a report is given out again."""
    asynchronous: Any = False
    pruner: Any = None
    steps: Any = None
    """Most steps of a trial."""
    distinct: Any = True
    retries: Any = 5


class Created(BaseModel):
    """The study."""

    name: str
    state: str
    trials: int | None = Field(description="The budget; the owner's limit if none was given.")


class Ask(_Body):
    """A client wants trials."""

    n: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    client: Label
    """Its name, for people."""
    wait_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False, strict=True)] = 0.0
    """How long to wait for the first one."""


class LeasedTrial(BaseModel):
    """A trial to train."""

    number: int
    params: dict[str, Any]
    seed: int = Field(description="From 0 to 2**32 - 1.")
    lease: str = Field(description="Whoever has it may report and tell.")
    expires_s: float = Field(description="Seconds until another client may get the trial.")
    attempt: int = Field(description="How often the trial has been given out, from 1.")


class Asked(BaseModel):
    """Trials to train."""

    trials: list[LeasedTrial]


_Lease = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(check_text)]


class Report(_Body):
    """Values of a trial's next steps; without any, the lease is renewed alone."""

    lease: _Lease
    step: Annotated[int, Field(ge=0, lt=1 << 31, strict=True)] = 0
    """Of the first value, from 0."""
    values: Annotated[list[Value], Field(max_length=10_000, fail_fast=True)] = []


class Reported(BaseModel):
    """The pruner's answer."""

    prune: bool = Field(description="Whether the training should stop.")
    expires_s: float


class Tell(_Body):
    """How a trial ended: with one of `value`, `failed` and `pruned`."""

    lease: _Lease
    value: Value | None = None
    failed: Annotated[str, Field(max_length=10_000)] | None = None
    """The reason of a failure."""
    pruned: Literal[True] | None = None

    @model_validator(mode="after")
    def _one(self) -> Tell:
        if [self.value, self.failed, self.pruned].count(None) != 2:
            rule = "a trial ends with one of value, failed and pruned"
            raise ExperimentError(rule, remedy="give one of them")
        return self


class ToldAnswer(BaseModel):
    """How a trial ended."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    reason: str | None = Field(description="Of a failure.")


class Release(_Body):
    """A client gives a trial back."""

    lease: _Lease


def _external(request: Request) -> ExternalStudies:
    external: ExternalStudies = request.app.state.service.external
    return external


@router.post("", status_code=201)
@threads.in_threads(threads.CHANGES)
def create(request: Request, response: Response, owner: Writer, body: NewStudy) -> Created:
    """Create an external study; the same again is the same study."""
    study, is_new = _external(request).create(owner, body.model_dump(exclude_unset=True))
    response.status_code = 201 if is_new else 200
    return Created(name=study.name, state=study.state.value, trials=study.facts.trials)


@router.post(
    "/{name}/ask",
    response_model=Asked,
    responses={204: {"description": "Nothing to ask yet; `Retry-After` has the seconds."}},
)
async def ask(
    request: Request, owner: Writer, name: Name, body: Ask, idempotency_key: Key = None
) -> Response:
    """Get trials to train. 410: the budget or the space is used, and all trials have ended."""
    external = _external(request)
    study = external.find(owner, name)
    asked = external.ask(study, body.client, body.n, idempotency_key, body.wait_s)
    leases = await (_unless_gone(request, asked) if body.wait_s else asked)
    if not leases:
        return Response(status_code=204, headers={"Retry-After": _RETRY_S})
    _count(request, "tuner_asks_total", len(leases))
    now = time.time()
    trials = [
        {
            "number": lease.number,
            "params": dict(lease.params),
            "seed": lease.seed,
            "lease": lease.id,
            "expires_s": max(0.0, round(lease.expires - now, 3)),
            "attempt": lease.attempt,
        }
        for lease in leases
    ]
    return _json({"trials": trials})


@router.post("/{name}/trials/{number}/report", response_model=Reported)
async def report(
    request: Request, owner: Writer, name: Name, number: Number, body: Report
) -> Response:
    """Report values of steps, renew the lease, and learn whether to stop."""
    external, values = _external(request), [float(value) for value in body.values]
    study = external.find(owner, name)

    def do(open_study: AskTell) -> Answer:
        return open_study.report(number, body.lease, body.step, values)

    answer: Answer = await external.call(study, do)
    expires_s = max(0.0, round(answer.expires - time.time(), 3))
    return _json({"prune": answer.prune, "expires_s": expires_s})


@router.post("/{name}/trials/{number}/tell", response_model=ToldAnswer)
async def tell(request: Request, owner: Writer, name: Name, number: Number, body: Tell) -> Response:
    """Tell how a trial ended; a value that is not finite is a failure."""
    external = _external(request)
    study = external.find(owner, name)
    value = None if body.value is None else float(body.value)

    def do(open_study: AskTell) -> Told:
        ended = {"failed": body.failed, "pruned": bool(body.pruned)}
        return open_study.tell(number, body.lease, value, **ended)  # type: ignore[arg-type]

    told: Told = await external.call(study, do)
    _count(request, "tuner_tells_total")
    answer = {"number": number, "state": told.state.value, "value": told.value}
    return _json(answer | {"reason": told.reason})


@router.post("/{name}/trials/{number}/release", status_code=204)
async def release(
    request: Request, owner: Writer, name: Name, number: Number, body: Release
) -> Response:
    """Give a trial back; the next client that asks gets it."""
    external = _external(request)
    study = external.find(owner, name)
    await external.call(study, lambda open_study: open_study.release(number, body.lease))
    return Response(status_code=204)


def _count(request: Request, name: str, n: int = 1) -> None:
    metrics: Metrics = request.app.state.metrics
    metrics.count(name, n)


def _json(value: Any) -> Response:
    content = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Response(content.encode(), media_type="application/json")


async def _unless_gone(request: Request, answer: Awaitable[T]) -> T | None:
    """Return an answer, or None once the client has left: it must not be given a trial."""
    waits = asyncio.ensure_future(answer)
    leaves = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({waits, leaves}, return_when=asyncio.FIRST_COMPLETED)
        return waits.result() if waits.done() else None
    finally:
        leaves.cancel()
        waits.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
