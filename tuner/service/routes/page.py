"""The page: its shell, its files, and the views that its script lays over what is shown.

All that changes something goes to /v1. The shell holds no data: with tokens, its script asks for
one and sends it with every request.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.errors import TunerError
from tuner.results.summary import Summary, summarize
from tuner.service import pages, threads
from tuner.service.access import Owner, Reader, caller
from tuner.service.curves import improvements
from tuner.service.events import EventLog
from tuner.service.experiments import InitBody
from tuner.service.problems import Problem, not_found, validation_problem
from tuner.service.service import Service
from tuner.service.studies import State
from tuner.tracking.ui import find_study_link

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

_STUDIES = 50  # of a list
_CURVES = 1_000  # kept, of studies of lists
_SUMMARIZED = 2_000  # trials of a study, above which the view has no verdict
_UNREAD = 20_000  # trials of an ended study, above which a list does not read its curve


@router.get("/")
async def shell(request: Request) -> HTMLResponse:
    """Return the document; the view is in it where the caller is known without a token."""
    try:
        owner = caller(request)
    except Problem:
        return HTMLResponse(pages.shell())
    try:
        view, status = await _view(request, owner), 200
    except Problem as problem:
        view, status = pages.problem_view(problem.title, problem.detail), problem.status
    return HTMLResponse(pages.shell(view), status)


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """Return the script, the stylesheet or the icon; their URLs change with their content."""
    if (file := pages.static_files().get(name)) is None:
        raise not_found("file", name)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    if request.query_params.get("v") != file.tag:
        headers = {"Cache-Control": "no-cache"}
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.get("/page/view")
async def view(request: Request, owner: Reader) -> Response:
    """Return the view that the parameters ask for; 304 where the caller has it."""
    return _tagged(request, await _view(request, owner))


@router.get("/page/links")
@threads.in_threads(threads.LINKS)
def links(request: Request, owner: Reader, study: str) -> Response:
    """Return the link to a study in MLflow; nothing if it is not there, or no server answers."""
    service = _service(request)
    known = service.results.study(owner.name, study)
    study_id = _id_of(service.events.of(owner.name, study))
    link = None if study_id is None else find_study_link(known["experiment"], study_id)
    return HTMLResponse(pages.links_view(link))


class Edited(BaseModel):
    """An experiment in the editor."""

    model_config = ConfigDict(extra="forbid")

    yaml: str
    data: bool = False
    """Whether its data is checked too."""


@router.post("/page/check")
@threads.in_threads(threads.READING)
def check(request: Request, owner: Reader, body: Edited) -> HTMLResponse:
    """Return what a search would do, or all that is wrong, each with its line."""
    service = _service(request)
    try:
        checked = service.experiments.check(owner, body.yaml, data=body.data)
    except TunerError as error:
        return HTMLResponse(pages.check_view(None, pages.located(error, body.yaml)))
    return HTMLResponse(pages.check_view(checked.check))


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _id_of(log: EventLog) -> str | None:
    """Return the random id of a study, from its first event."""
    for line in log.read(0).lines.splitlines()[:2]:
        event = json.loads(line)
        if event["event"] == "begun":
            return str(event["id"])
    return None


def _tagged(request: Request, content: str) -> Response:
    tag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(content, headers={"ETag": tag})


async def _view(request: Request, owner: Owner) -> str:
    """Return a view as HTML.

    Raises:
        Problem: 404, there is no such study or data.
    """
    asked, service = pages.asked_of(request.query_params), _service(request)
    if asked["study"]:
        return await threads.run_in(threads.PAGES, _study, service, owner, asked)
    if asked["new"]:
        return await threads.READING.run(owner.name, _new, service, owner, asked)
    return await threads.run_in(threads.PAGES, _studies, service, owner, asked)


def _studies(service: Service, owner: Owner, asked: Mapping[str, str]) -> str:
    state = State(asked["state"]) if asked["state"] in pages.STATES else None
    listed = service.results.studies(
        owner.name, state, asked["q"] or None, str(pages.offset_of(asked) or "") or None, _STUDIES
    )
    for study in listed["items"]:
        study["curve"] = _curves.of(service, study)
    queue = service.results.queue(owner.name)
    return pages.studies_view(listed, queue, asked=asked, may_write=owner.role == "write")


def _study(service: Service, owner: Owner, asked: Mapping[str, str]) -> str:
    results, name = service.results, asked["study"]
    study = results.study(owner.name, name)
    status = asked["status"] if asked["status"] in pages.STATUSES else None
    cursor, order = pages.offset_of(asked), pages.order_of(study, asked)
    log = service.events.of(owner.name, name)
    last_event = log.end  # before the rest is read: nothing is missed
    return pages.study_view(
        study,
        results.trials(owner.name, name, status, order, str(cursor), pages.PAGE_SIZE),
        results.scores(owner.name, name),
        asked=asked,
        may_write=owner.role == "write",
        summary=_summary(service, owner, study),
        last_event=last_event,
    )


def _summary(service: Service, owner: Owner, study: Mapping[str, Any]) -> Summary | None:
    """Return the result of a finished search, unless reading its journal takes long."""
    if study["kind"] != "search" or study["state"] != "done" or study["trained"] > _SUMMARIZED:
        return None
    try:
        return summarize(service.results.record(service.studies.get(owner.name, study["name"])))
    except (TunerError, Problem):  # the page is about more than it
        return None


def _new(service: Service, owner: Owner, asked: Mapping[str, str]) -> str:
    known = service.datasets.list(owner.name)
    dataset, proposal, error = None, None, None
    if asked["dataset"]:
        dataset = service.datasets.get(owner.name, asked["dataset"])
        try:
            options = {name: asked[name] for name in pages.OPTIONS if asked[name]}
            body = InitBody.model_validate({"dataset": asked["dataset"], **options})
            proposal = service.experiments.propose(owner, body)
        except ValidationError as refused:
            details = refused.errors()
            for each in details:
                each["loc"] = ("query", *each["loc"])
            error = validation_problem(details).detail
        except (TunerError, Problem) as refused:
            error = str(refused)
    return pages.new_view(
        known,
        dataset,
        asked=asked,
        may_write=owner.role == "write",
        proposal=proposal,
        error=error,
    )


_Kept = tuple[object, list[tuple[int, float]]]  # what it was made of, and the curve


class _Curves:
    """The curves of studies in lists; read again only when a study has changed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, service: Service, study: Mapping[str, Any]) -> list[tuple[int, float]]:
        """Return the improvements of a study's best score."""
        if study["best"] is None:
            return []
        key = (service.settings.root, study["owner"], study["name"])
        stamp = (study["submitted"], study["trained"], study["best"]["score"])
        with self._lock:
            known, curve = self._kept.get(key, (None, []))
        if known == stamp or (study["state"] != "running" and study["trained"] > _UNREAD):
            return curve
        scores = service.results.scores(study["owner"], study["name"])
        curve = improvements(scores, study["direction"])
        with self._lock:
            self._kept[key] = stamp, curve
            while len(self._kept) > _CURVES:
                self._kept.popitem(last=False)
        return curve


_curves = _Curves()
