"""Errors as problem+json: one line, the right status, nothing about the server."""

import errno
from pathlib import Path
from typing import Annotated, Literal

import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.testclient import TestClient

from tuner.errors import (
    DataError,
    ExperimentError,
    InputError,
    Interrupted,
    JournalError,
    ModelError,
    RunError,
    StudyError,
    TunerError,
)
from tuner.service.problems import MEDIA_TYPE, Problem, add_handlers, not_found

ROOT = Path("/srv/tuner")


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    height: int | None = None


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    trials: Annotated[int, Field(ge=1, strict=True)]
    name: str = "a"
    value: Annotated[float, Field(strict=True)] | Literal["NaN"] | None = None
    rows: Annotated[list[Row | str], Field(max_length=500)] = []


@pytest.fixture
def app():
    app = FastAPI()
    add_handlers(app, ROOT)

    @app.post("/studies")
    def studies(body: Body, dry: bool = False) -> str:
        return body.name

    @app.get("/studies")
    def listed(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> int:
        return limit

    @app.delete("/studies")
    def removed() -> None:
        raise not_found("study", "x")

    return app


@pytest.fixture
def client(app):
    return TestClient(app, raise_server_exceptions=False)


def raising(app, error):
    @app.get("/raises")
    def raises() -> None:
        raise error

    return TestClient(app, raise_server_exceptions=False).get("/raises")


def check(answer, status):
    """The object of a problem: complete, of one line."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)
    body = answer.json()
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert "\n" not in body["detail"]
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("a"), 422),
        (ExperimentError("a"), 422),
        (DataError("a"), 422),
        (StudyError("a"), 409),
        (ModelError("a"), 409),
        (JournalError("a"), 503),
        (RunError("a"), 500),
        (Interrupted("a"), 503),
        (Problem(410, "a"), 410),
        (OSError(errno.ENOSPC, "No space left"), 507),
    ],
)
def test_each_kind_of_error_has_a_status(app, error, status):
    check(raising(app, error), status)


def test_a_problem_has_the_fields_of_the_error(app):
    error = ExperimentError("must be positive", key="budget.trials", got=0, remedy="write 40")
    body = check(raising(app, error), 422)
    assert body["detail"] == "budget.trials: must be positive, got 0; write 40"
    assert (body["key"], body["got"], body["remedy"]) == ("budget.trials", "0", "write 40")


def test_no_path_of_the_server_is_shown(app):
    error = RunError("cannot be read", where="/srv/tuner/datasets/ana/00ff/sales.csv")
    assert check(raising(app, error), 500)["detail"] == "sales.csv: cannot be read"
    nested = TunerError("no such folder: /srv/tuner/models/ana/x", got="'/srv/tuner/events/y'")
    assert "/srv" not in str(Problem.of(nested, root=ROOT).body)


def test_an_unexpected_error_is_logged_under_a_number(app, caplog):
    body = check(raising(app, ZeroDivisionError("secret /srv/tuner/x")), 500)
    assert "secret" not in str(body)
    assert f"error {body['error']}" in caplog.text
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"json": {}}, 422, "trials: is required"),
        ({"json": {"trials": 0}}, 422, "trials: must be at least 1, got 0"),
        ({"json": {"trials": 1.5}}, 422, "trials: must be a whole number, got 1.5"),
        ({"json": {"trials": 1, "nmae": 2}}, 422, "nmae: unknown key 'nmae'; did you mean 'name'?"),
        ({"json": {"trials": "y" * 300, "x": 2}}, 422, "(and 1 more)"),
        ({"json": [1]}, 422, "must be a JSON object, got [1]"),
        ({"json": None}, 422, "is required"),
        ({"content": b"{"}, 400, "the body is not JSON: Expecting property name"),
        ({"content": b'"\xff"'}, 400, "the body cannot be read; send JSON in UTF-8"),
        ({"content": b"[" * 900}, 400, "the body"),
        (
            {"content": b'{"trials": 1}', "headers": {"Content-Type": "text/plain"}},
            422,
            "Content-Type",
        ),
    ],
)
def test_a_wrong_body_is_answered_in_one_line(client, request_, status, detail):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/studies", **{"headers": headers, **request_})
    body = check(answer, status)
    assert detail in body["detail"]
    assert len(body["detail"]) < 200


def test_every_broken_key_of_a_body_is_listed(client):
    rows = [{"hieght": 3}, {"height": "x"}, 1.5]
    body = check(client.post("/studies", json={"trails": 3, "value": "nan", "rows": rows}), 422)
    assert body["detail"] == (
        "rows.0.hieght: unknown key 'hieght'; did you mean 'height'? (and 5 more)"
    )
    listed = {each.pop("key"): each for each in body["errors"]}
    assert list(listed)[:2] == ["rows.0.hieght", "trails"]  # unknown keys first
    assert listed["trails"]["remedy"] == "did you mean 'trials'?"
    assert listed["trials"] == {"rule": "is required"}
    assert listed["value"] == {
        "rule": "must be a number or 'NaN'",
        "got": "'nan'",
        "remedy": "JSON has no NaN and no infinity",
    }
    assert listed["rows.1.height"] == {"rule": "must be a whole number", "got": "'x'"}
    assert listed["rows.2"]["got"] == "1.5"


def test_many_broken_keys_are_counted_and_the_first_are_listed(client):
    body = check(client.post("/studies", json={"trials": 1, "rows": [0] * 300}), 422)
    assert body["detail"].endswith("(and 299 more)")
    assert [each["key"] for each in body["errors"]] == [f"rows.{i}" for i in range(100)]


def test_all_that_is_wrong_with_an_experiment_is_listed(app):
    others = [ExperimentError("no such file: /srv/tuner/datasets/x", key="data.path")]
    error = ExperimentError("must be positive", key="budget.trials", got=0, others=others)
    assert check(raising(app, error), 422)["errors"] == [
        {"key": "budget.trials", "rule": "must be positive", "got": "0"},
        {"key": "data.path", "rule": "no such file: x"},
    ]


def test_a_wrong_parameter_names_its_place(client):
    body = check(client.get("/studies?limit=0"), 422)
    assert body["detail"] == "query: limit: must be at least 1, got '0'"
    assert body["errors"] == [{"key": "limit", "rule": "must be at least 1", "got": "'0'"}]
    both = check(client.post("/studies?dry=x", json={}), 422)
    assert [each["key"] for each in both["errors"]] == ["dry", "trials"]


def test_an_unknown_path_or_method_is_a_problem(client):
    assert "no such path: '/x'" in check(client.get("/x"), 404)["detail"]
    answer = client.put("/studies")
    assert "no method PUT; it has GET, POST, DELETE" in check(answer, 405)["detail"]
    assert answer.headers["allow"] == "GET, POST, DELETE"
    assert check(client.delete("/studies"), 404)["detail"] == "no such study: 'x'"
