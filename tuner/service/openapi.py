"""The OpenAPI description: every operation's errors are problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from tuner.service.problems import MEDIA_TYPE

_FIELDS = {
    "key": {"type": "string", "description": "The dotted key that breaks the rule."},
    "rule": {"type": "string"},
    "got": {"type": "string", "description": "The value that breaks the rule."},
    "remedy": {"type": "string"},
}
_PROBLEM = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The phrase of the status."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "One line: key, rule, value; remedy."},
        **_FIELDS,
        "errors": {
            "type": "array",
            "description": "Every broken rule, at most 100; the first one is that of `detail`.",
            "items": {"type": "object", "required": ["rule"], "properties": _FIELDS},
        },
        "error": {"type": "string", "description": "The number of the error in the server's log."},
    },
}
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ERRORS = {
    "4XX": "The request breaks a rule, or asks for what does not exist.",
    "5XX": "The server cannot answer now.",
}
_REPLACED = ("HTTPValidationError", "ValidationError")  # FastAPI's own errors, which are not sent


def describe(app: FastAPI) -> None:
    """Have an application describe its errors as problems."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(original())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in _REPLACED:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    for operations in schema["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            for status, response in responses.items():
                if status >= "4":
                    response["content"] = _CONTENT
            for status, description in _ERRORS.items():
                responses[status] = {"description": description, "content": _CONTENT}
    return schema
