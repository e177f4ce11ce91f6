"""Errors as answers: problem+json (RFC 9457), with tuner's one line as its detail.

No answer has a traceback, a place of the server, or the content of a file.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import secrets
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import ErrorDetails
from starlette.responses import Response
from starlette.routing import Match

from tuner.errors import (
    ExperimentError,
    InputError,
    Interrupted,
    JournalAway,
    JournalError,
    ModelError,
    RunError,
    StudyError,
    TunerError,
    one_line,
)
from tuner.experiment.messages import explain
from tuner.service.hiding import public
from tuner.strategies.base import broken_rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from pydantic import BaseModel
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STATUS: tuple[tuple[type[TunerError], int], ...] = (
    (JournalAway, 503),
    (JournalError, 503),  # all journals are the server's
    (StudyError, 409),
    (ModelError, 409),
    (InputError, 422),
    (Interrupted, 503),
)
_MOST_LISTED = 100  # broken rules in an answer
_MOST_BROKEN = 1_000  # rules of a request that are looked at
_log = logging.getLogger("tuner.service")


class Problem(Exception):
    """An answer other than success.

    Args:
        status: the HTTP status, 400 to 599.
        detail: one line: key, rule, value, remedy.
        headers: of the answer, such as `Retry-After`.
        members: further members of the JSON object.
    """

    def __init__(
        self,
        status: int,
        detail: object,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.status, self.detail = status, one_line(str(detail))
        super().__init__(self.detail)
        self.headers, self.members = dict(headers or {}), members

    @classmethod
    def of(
        cls, error: TunerError, *, status: int | None = None, root: Path | None = None
    ) -> Problem:
        """Return an error as a problem, with its fields `key`, `rule`, `got` and `remedy`.

        Where a key breaks a rule, `errors` lists every broken one with these fields.

        Args:
            error: the error.
            status: overrides that of the kind of error: 422 where the input breaks a rule.
            root: the server's folder, of which nothing is shown; see `for_clients`.
        """
        if status is None:
            status = _status_of(error)
        shown = public(error, root)
        members: dict[str, Any] = _fields(shown)
        others = error.others if isinstance(error, ExperimentError) else ()
        if error.key or others:
            listed = others[: _MOST_LISTED - 1]
            members["errors"] = [dict(members), *(_fields(public(other, root)) for other in listed)]
        headers = {"Retry-After": "5"} if status == 503 else None
        return cls(status, shown, headers=headers, **members)

    @property
    def title(self) -> str:
        """The phrase of the status."""
        return HTTPStatus(self.status).phrase

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object."""
        known = {"type": "about:blank", "title": self.title}
        return {**known, "status": self.status, "detail": self.detail, **self.members}

    def response(self) -> Response:
        """Return the answer."""
        content = json.dumps(self.body, ensure_ascii=False).encode(errors="replace")
        return Response(content, self.status, self.headers, MEDIA_TYPE)


def _status_of(error: TunerError) -> int:
    if isinstance(error, RunError) and _disk_is_full(error):
        return 507
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


def _disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error came of a disk without room."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    return _disk_is_full(error.__cause__ or error.__context__)


def not_found(what: str, name: str) -> Problem:
    """Return the answer for something that does not exist, or is of another owner."""
    return Problem(404, f"no such {what}: {name!r}")


def _fields(error: TunerError) -> dict[str, str]:
    """Return what an error says of a key, without the fields that it lacks."""
    fields = {"key": error.key, "rule": error.rule, "got": error.got, "remedy": error.remedy}
    return {name: text for name, text in fields.items() if text}


def validation_problem(
    errors: Sequence[ErrorDetails], model: type[BaseModel] | None = None, body: object = None
) -> Problem:
    """Return the broken rules of a request, from the errors of pydantic.

    The status is 400 where the body is no JSON, else 422.

    Args:
        errors: each with its place in the request, such as `body` or `query`, and the keys there.
        model: what the body must be; None where the request has none.
        body: what was sent.
    """
    details = errors[0]
    place, *keys = details["loc"] or ("body",)
    if details["type"] == "json_invalid":
        where = f"at character {keys[0]}" if keys else ""
        rule = one_line(f"the body is not JSON: {details.get('ctx', {}).get('error', '')} {where}")
        return Problem(400, TunerError(rule, remedy="correct it"))
    inside, found = list[ErrorDetails](), list[ExperimentError]()
    for each in errors:
        place, *keys = each["loc"] or ("body",)
        if place == "body" and keys and model is not None:
            inside.append({**each, "loc": tuple(keys)})
        else:
            found.append(_broken(each))
    if model is not None:
        found += map(_in_body, explain(inside, model, body))
    first, *others = found
    return Problem.of(first.with_(others=tuple(others)), status=422)


_WITHOUT_VALUE = ("missing", "extra_forbidden")
_NOT_IN_JSON = re.compile(r"'[+-]?(nan|inf|infinity)'", re.IGNORECASE)


def _in_body(error: ExperimentError) -> ExperimentError:
    """Return a broken rule of a body, with a hint where a text stands for a number."""
    if error.got is None or not _NOT_IN_JSON.fullmatch(error.got):
        return error
    return error.with_(remedy="JSON has no NaN and no infinity")


def _broken(details: ErrorDetails) -> ExperimentError:
    """Return the broken rule of a parameter, or of a body as a whole."""
    place, *keys = details["loc"] or ("body",)
    if isinstance(own := details.get("ctx", {}).get("error"), ExperimentError):
        return own
    return ExperimentError(
        _rule(details, str(place)),
        where=None if place == "body" else str(place),
        key=".".join(map(str, keys)) or None,
        got=None if details["type"] in _WITHOUT_VALUE else _shown(details["input"]),
        remedy=_remedy(details),
    )


def _rule(details: ErrorDetails, place: str) -> str:
    match details["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return f"unknown {'key' if place == 'body' else 'parameter'}"
        case "value_error":
            return one_line(str(details["ctx"]["error"]))
        case "model_attributes_type" | "model_type" | "dict_type":
            return "must be a JSON object"
    return broken_rule(details)


def _remedy(details: ErrorDetails) -> str | None:
    match details["type"]:
        case "extra_forbidden":
            return "remove it"
        case "model_attributes_type" if isinstance(details["input"], bytes):
            return "send the header Content-Type: application/json"
    return None


def _shown(value: object) -> str:
    """Return a value of a request, at most 80 characters."""
    text = "a body that is no JSON" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def add_handlers(app: FastAPI, root: Path | None = None) -> None:
    """Answer every error with a problem; `root` is the folder whose paths are not shown."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def of_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def of_tuner(request: Request, error: Exception) -> Response:
        assert isinstance(error, TunerError)
        return Problem.of(error, root=root).response()

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        field = getattr(request.scope.get("route"), "body_field", None)
        model = None if field is None else field.field_info.annotation
        # Those of a long list or a large object would hold the loop.
        return validation_problem(error.errors()[:_MOST_BROKEN], model, error.body).response()

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http_problem(request, error).response()

    async def of_any(request: Request, error: Exception) -> Response:
        return unexpected(error).response()

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(TunerError, of_tuner)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(OSError, of_any)
    app.add_exception_handler(Exception, of_any)


def unexpected(error: BaseException) -> Problem:
    """Log an error that tuner does not raise on purpose, and return what a client may know."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        _log.error("the disk is full: %s", error)
        return Problem(507, "the server's disk is full; tell its administrator to make room")
    number = secrets.token_hex(4)
    _log.error("error %s", number, exc_info=error)
    detail = f"the server failed; its log has the reason under error {number}"
    return Problem(500, detail, error=number)


def _http_problem(request: Request, error: Any) -> Problem:
    status, headers = error.status_code, dict(error.headers or {})
    path, method = request.url.path, request.method
    match status:
        case 404:
            return Problem(404, f"no such path: {path!r}; GET /openapi.json lists what there is")
        case 405:
            allowed = ", ".join(allowed_methods(request))
            detail = f"{path!r} has no method {method}; it has {allowed}"
            return Problem(405, detail, headers={**headers, "Allow": allowed})
        case 413:
            return Problem(413, "the body is too large; GET /v1/me shows the limits")
        case 400:
            return Problem(400, "the body cannot be read; send JSON in UTF-8")
    return Problem(status, error.detail, headers=headers)


def allowed_methods(request: Request) -> list[str]:
    """Return the methods of a request's path: of all its routes together."""
    kept = {k: request.scope[k] for k in ("type", "path", "root_path", "headers")}
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**kept, "method": method})[0] is Match.FULL for route in routes)
    ]
