"""Studies: submit, list, show, cancel, resume, extend, and their results."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner.experiment.schema import STUDY_BYTES
from tuner.journal.records import Status
from tuner.progress.reporters import to_json
from tuner.service import threads
from tuner.service.access import Owner, Reader, Writer
from tuner.service.models import tar_of
from tuner.service.problems import Problem
from tuner.service.service import Service
from tuner.service.studies import Kind, State, Study
from tuner.service.submissions import SubmissionBody, datasets_of, parse_submission
from tuner.service.trial_table import Order

router = APIRouter(prefix="/v1", tags=["studies"])

REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""The page has its style and pictures in itself, and runs nothing."""

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")]
Name = Annotated[str, Path(min_length=1, max_length=STUDY_BYTES)]


class StudyAnswer(BaseModel):
    """A study."""

    name: str
    kind: Kind
    state: State
    owner: str
    experiment: str
    strategy: str
    seed: int
    metric: str
    direction: Literal["minimize", "maximize"]
    trials: int | None = Field(description="The budget.")
    trained: int = Field(description="Trials that have ended, without duplicates.")
    best: dict[str, Any] | None = Field(
        description="`trial` (null: the untuned default), `score` and `params`; once a search has "
        "ended, those of its winner."
    )
    submitted: str
    began: str | None
    ended: str | None
    error: str | None
    priority: int
    max_workers: int | None
    position: int | None = Field(description="Place in the owner's queue, from 1.")
    exhausted: str | None = Field(
        description="That an external study has tried all configurations of its space, and is "
        "done: no budget adds a trial."
    )
    waits: str | None = Field(description="Why nothing happens: there are no workers, or clients.")
    datasets: list[str]


class StudyPage(BaseModel):
    """Studies, newest first."""

    items: list[StudyAnswer]
    next: str | None


class TrialPage(BaseModel):
    """Trials, as `tuner show --json` prints them."""

    items: list[dict[str, Any]]
    next: str | None
    total: int


class Queue(BaseModel):
    """The workers, and the caller's studies that run or wait, in order."""

    workers: int
    busy: int
    studies: list[StudyAnswer]


class Extension(BaseModel):
    """A larger budget."""

    model_config = ConfigDict(extra="forbid")

    trials: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    timeout: Annotated[float | str, Field(description="Seconds, or 90s, 10m, 1h30m.")] | None = None
    reopen_test: Annotated[bool, Field(strict=True)] = False


class Rows(BaseModel):
    """What to predict from."""

    model_config = ConfigDict(extra="forbid")

    rows: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    """Objects by column; without them the data of the search is used."""
    all: Annotated[bool, Field(strict=True)] = False
    """Whether to forecast after every row that has a full window before it."""
    other_columns: Annotated[bool, Field(strict=True)] = False
    """Whether rows may have columns that the data of the search lacks; they are ignored."""
    dtypes: Annotated[
        dict[str, str], Field(examples=[{"day": "datetime64[us, Europe/Berlin]"}])
    ] = {}
    """The types of columns of times, as pandas names them: offsets from UTC do not tell a zone."""


class Predictions(BaseModel):
    """A row for each prediction."""

    rows: list[dict[str, Any]]
    dtypes: dict[str, str] = Field(description="The type of each column, as pandas names it.")
    notes: list[str]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.post("/studies", status_code=201)
async def submit(
    request: Request, response: Response, owner: Writer, body: SubmissionBody
) -> StudyAnswer:
    """Queue a search; the same search again is the same study, and a larger budget extends it.

    A smaller budget leaves it as it is. Its data is checked first, as `tuner run` does.
    """
    service = _service(request)
    answer, is_new = await threads.READING.run(owner.name, _submitted, service, owner, body)
    response.status_code = 201 if is_new else 200
    return answer


def _submitted(service: Service, owner: Owner, body: SubmissionBody) -> tuple[StudyAnswer, bool]:
    submission = parse_submission(body, owner, service.datasets, service.settings)
    service.pool.check(submission.experiment.resources)
    with service.datasets.in_use(owner.name, datasets_of(submission.spec)):
        service.experiments.check_data(owner, submission.experiment, submission.spec)
        study, is_new = service.searches.submit(owner, submission)
    return _answer(service, owner.name, study.name), is_new


@router.get("/studies")
def studies(
    request: Request,
    owner: Reader,
    state: State | None = None,
    q: Annotated[str | None, Query(max_length=200)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> StudyPage:
    """List the caller's studies, newest first; `q` is a part of a study's or experiment's name."""
    found = _service(request).results.studies(owner.name, state, q, cursor, limit)
    return StudyPage.model_validate(found)


@router.get("/queue")
def queue(request: Request, owner: Reader) -> Queue:
    """Return the use of the workers, and the caller's searches that run or wait, in order."""
    return Queue.model_validate(_service(request).results.queue(owner.name))


@router.get("/studies/{name}")
def study(request: Request, owner: Reader, name: Name) -> StudyAnswer:
    """Return one study."""
    return _answer(_service(request), owner.name, name)


@router.delete("/studies/{name}", status_code=204)
@threads.in_threads(threads.CHANGES)
def delete(request: Request, owner: Writer, name: Name) -> Response:
    """Delete a study that has ended, with its journal, events and model."""
    _service(request).delete(owner.name, name)
    return Response(status_code=204)


@router.post("/studies/{name}/cancel", status_code=202)
@threads.in_threads(threads.CHANGES)
def cancel(request: Request, owner: Writer, name: Name) -> StudyAnswer:
    """End a study now; its running trials are given up, and run again if it is resumed."""
    service = _service(request)
    service.controller(owner.name, name).cancel(service.studies.get(owner.name, name))
    return _answer(service, owner.name, name)


@router.post("/studies/{name}/resume", status_code=202)
@threads.in_threads(threads.CHANGES)
def resume(request: Request, owner: Writer, name: Name) -> StudyAnswer:
    """Queue a study again that was cancelled or has failed."""
    service = _service(request)
    service.controller(owner.name, name).resume(service.studies.get(owner.name, name), owner)
    return _answer(service, owner.name, name)


@router.post("/studies/{name}/extend", status_code=202)
@threads.in_threads(threads.CHANGES)
def extend(request: Request, owner: Writer, name: Name, body: Extension) -> StudyAnswer:
    """Give a study a larger budget of trials or time, and queue it."""
    service = _service(request)
    found = service.studies.get(owner.name, name)
    changes = body.model_dump(exclude_none=True)
    service.controller(owner.name, name).extend(found, changes, owner)
    return _answer(service, owner.name, name)


@router.get("/studies/{name}/summary")
@threads.in_threads(threads.RESULTS)
def summary(request: Request, owner: Reader, name: Name) -> Response:
    """Return what `tuner show --json` prints."""
    service = _service(request)
    found = service.results.summary(service.studies.get(owner.name, name))
    return Response(to_json(found), media_type="application/json")


@router.get("/studies/{name}/record")
@threads.in_threads(threads.RESULTS)
def record(request: Request, owner: Reader, name: Name) -> Response:
    """Return the journal's record of a search, from which tuner renders everything."""
    service = _service(request)
    found = service.results.record_text(service.studies.get(owner.name, name))
    return Response(found, media_type="application/json")


@router.get("/studies/{name}/trials")
def trials(
    request: Request,
    owner: Reader,
    name: Name,
    status: Status | None = None,
    order: Order = "number",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> TrialPage:
    """Return trials; with `order=score` the best first, those without a value last."""
    service = _service(request)
    found = service.results.trials(owner.name, name, status, order, cursor, limit)
    return TrialPage.model_validate(found)


@router.get(
    "/studies/{name}/best",
    response_class=Response,
    responses={200: {"content": {"application/yaml": {}, "application/json": {}}}},
)
@threads.in_threads(threads.RESULTS)
def best(
    request: Request, owner: Reader, name: Name, format: Literal["yaml", "json"] = "yaml"
) -> Response:
    """Return the best configuration as an experiment file that trains again."""
    service, as_json = _service(request), format == "json"
    text = service.results.best(service.studies.get(owner.name, name), as_json=as_json)
    return Response(text, media_type="application/json" if as_json else "application/yaml")


@router.get("/studies/{name}/report", response_class=HTMLResponse)
@threads.in_threads(threads.RESULTS)
def report(request: Request, owner: Reader, name: Name) -> HTMLResponse:
    """Return the report as one HTML page without scripts."""
    service = _service(request)
    page = service.results.report(service.studies.get(owner.name, name))
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return HTMLResponse(page, headers=headers)


@router.get(
    "/studies/{name}/model",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-tar": {}}}},
)
def model(request: Request, owner: Reader, name: Name) -> StreamingResponse:
    """Return the winner's model folder as a tar."""
    service = _service(request)
    folder = service.results.model(service.studies.get(owner.name, name))
    return StreamingResponse(tar_of(folder), media_type="application/x-tar")


_CSV, _JSON = "text/csv", "application/json"
_LONGEST_NOTES = 4000  # characters of a header
_PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            _JSON: {"schema": Rows.model_json_schema()},
            _CSV: {"schema": {"type": "string"}},
        },
    }
}


@router.post(
    "/studies/{name}/predict",
    response_model=Predictions,
    openapi_extra=_PREDICT,
    responses={200: {"content": {_CSV: {"schema": {"type": "string"}}}}},
)
async def predict(
    request: Request,
    owner: Reader,
    name: Name,
    all: Annotated[bool, Query(description="As in JSON, for rows in CSV.")] = False,
) -> Response:
    """Predict with the winner's model: from rows in JSON or CSV, or after the end of the data.

    The answer is CSV where `Accept` has it first; the header `Tuner-Notes` then has the notes, a
    list in JSON.
    """
    service = _service(request)
    found = service.studies.get(owner.name, name)
    rows, options = await _rows_to_predict(request, all)
    options["as_csv"] = _accepts_csv(request.headers.get("accept", ""))
    answer = partial(_predicted, service, found, rows, options)
    return await threads.READING.run(owner.name, answer)


def _predicted(
    service: Service,
    study: Study,
    rows: list[dict[str, Any]] | bytes | None,
    options: dict[str, Any],
) -> Response:
    """Return the answer; it may be long, so it is written in a thread too."""
    predicted = service.results.predict(study, rows, **options)
    notes = predicted["notes"]
    if options["as_csv"]:
        shown = json.dumps(notes)
        headers = {"Tuner-Notes": shown if len(shown) <= _LONGEST_NOTES else "[]"}
        return Response(predicted["csv"], media_type=_CSV, headers=headers)
    columns = predicted["columns"]
    items = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    content = {"rows": items, "dtypes": predicted["dtypes"], "notes": notes}
    return Response(json.dumps(content), media_type=_JSON)


async def _rows_to_predict(
    request: Request, all_windows: bool
) -> tuple[list[dict[str, Any]] | bytes | None, dict[str, Any]]:
    """Return the rows of a body, objects or CSV, and options of `Results.predict`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    content = await request.body()
    if kind == _CSV:
        return content, {"all_windows": all_windows}
    if kind != _JSON:
        raise Problem(415, f"the body must be {_JSON} or {_CSV}; send the header Content-Type")
    try:
        body = Rows.model_validate_json(content)
    except ValidationError as error:
        broken = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(broken) from None
    all_windows = body.all or all_windows
    return body.rows, {
        "all_windows": all_windows,
        "other_columns": body.other_columns,
        "dtypes": body.dtypes,
    }


def _accepts_csv(accept: str) -> bool:
    """Return whether CSV comes before JSON among the types that a client accepts."""
    types = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return next((name == _CSV for name in types if name in (_CSV, _JSON, "*/*")), False)


def _answer(service: Service, owner: str, name: str) -> StudyAnswer:
    return StudyAnswer.model_validate(service.results.study(owner, name))
