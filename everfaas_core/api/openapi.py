"""Routes that document themselves: what a call is validated with is what the OpenAPI document says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import flask
import flask_smorest  # type: ignore[import-untyped]  # it ships no types
from marshmallow import Schema, ValidationError

from everfaas_core.api.answers import ErrorAnswer
from everfaas_core.api.errors import InvalidRequest
from everfaas_core.api.negotiation import JSON, MSGPACK, MalformedBody, decode_body
from everfaas_core.api.schemas import EmptyBody, TaskItem
from everfaas_core.version import __version__

Fields = dict[str, Any]
View = Callable[..., flask.Response]

PROBLEMS_MAX: Final = 20  # fields named in one error
PROBLEM_CHARS_MAX: Final = 100

_ERRORS: Final = {
    400: "A payload is empty, not base64, not a complete pickle, or (for a function) plainly not a callable.",
    403: "The host is not allowed, or a page of another site tried to change something.",
    404: "Unknown function, task or worker, or the id in the path is malformed.",
    409: "An idempotency key stands for another call, or a task to retry has not ended as FAILED or CANCELLED.",
    410: "The task has ended and its retention has passed.",
    413: "The body is larger than the limit.",
    415: "The content type is neither application/json nor application/msgpack.",
    422: "The body or the query does not fit its schema.",
    429: "Too many queued tasks or waiting requests.",
    503: "The store does not answer.",
}


class Api(flask_smorest.Api):  # type: ignore[misc]  # it ships no types
    """flask-smorest's generator of the document; errors are ours."""

    ERROR_SCHEMA = ErrorAnswer
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        """Leave them to `everfaas_core.api.errors`."""


class Resource(flask_smorest.Blueprint):  # type: ignore[misc]  # it ships no types
    """A group of calls."""

    DOCSTRING_INFO_DELIMITER = None

    def call(
        self,
        method: str,
        rules: str | Sequence[str],
        view: View,
        *,
        returns: type[Schema],
        status: int = 200,
        body: type[Schema] | None = None,
        query: type[Schema] | None = None,
        errors: Sequence[int] = (),
        kinds: Sequence[str] = (JSON, MSGPACK),
    ) -> None:
        """Add a call. Its view gets the path's ids by name, and `body` and `query` as validated dicts.

        A POST without a `body` schema takes an empty body or an empty object. `kinds` are the content types that it
        answers with.
        """
        schema = (body or EmptyBody)() if method == "POST" else None
        documented = self.doc(**_operation(_content(returns, kinds), status, schema, query, (403, 503, *errors)))(
            _validated(view, schema, query() if query else None, empty_allowed=body is None)
        )
        for rule in [rules] if isinstance(rules, str) else rules:
            self.add_url_rule(rule, view.__name__, documented, methods=[method])


def _validated(view: View, body: Schema | None, query: Schema | None, *, empty_allowed: bool) -> View:
    no_query = query.load({}) if query is not None else {}

    @functools.wraps(view)
    def checked(**path: Any) -> flask.Response:
        if body is not None:
            loaded = _load_body(body, empty_allowed=empty_allowed)
            if not empty_allowed:
                path["body"] = loaded
        if query is not None:
            sent = flask.request.args.to_dict() if flask.request.query_string else None
            path["query"] = load(query, sent, "the query") if sent else dict(no_query)
        return view(**path)

    return checked


def _load_body(schema: Schema, *, empty_allowed: bool) -> Fields:
    if empty_allowed and not flask.request.content_length:
        return {}
    try:
        content = decode_body()
    except MalformedBody as error:
        kind = "msgpack" if flask.request.mimetype == MSGPACK else "JSON"
        raise InvalidRequest(f"the body is not {kind}: {error}") from None
    return load(schema, content, "the body")


def load(schema: Schema, content: Any, what: str) -> Fields:
    """Validate `content`. Raises InvalidRequest, whose details name each field's problem."""
    try:
        loaded: Fields = schema.load(content)
    except ValidationError as error:
        raise invalid(what, error.messages) from None
    return loaded


def invalid(what: str, messages: Any, *, index: int | None = None) -> InvalidRequest:
    """Make the error of marshmallow's messages, cut to a bounded size."""
    problems = messages if isinstance(messages, Mapping) else {"_schema": messages}
    named = {_short(name): _flat(problem) for name, problem in list(problems.items())[:PROBLEMS_MAX]}
    text = "; ".join(problem if name == "_schema" else f"{name}: {problem}" for name, problem in named.items())
    details: Fields = {"fields": {name: [problem] for name, problem in named.items()}}
    if index is not None:
        details["index"] = index
    return InvalidRequest(f"{what} is not valid: {text}", details=details)


def _flat(problem: Any) -> str:
    if isinstance(problem, Mapping):
        return ", ".join(f"{_short(key)}: {_flat(value)}" for key, value in list(problem.items())[:PROBLEMS_MAX])
    if isinstance(problem, list):
        return " ".join(_flat(item) for item in problem[:PROBLEMS_MAX])
    return str(problem)


def _short(name: object) -> str:
    text = str(name)[:PROBLEM_CHARS_MAX]
    return text if text.isprintable() else ascii(text)[:PROBLEM_CHARS_MAX]


def _operation(
    content: Fields, status: int, body: Schema | None, query: type[Schema] | None, errors: Sequence[int]
) -> Fields:
    """Describe a call in the words of OpenAPI."""
    kinds = (413, 415, 422) if body is not None else (422,) if query is not None else ()
    operation: Fields = {
        "responses": {
            str(status): {"description": "Success.", "content": content},
            **{
                str(code): {"description": _ERRORS[code], "content": {JSON: {"schema": ErrorAnswer}}}
                for code in sorted({*errors, *kinds})
            },
        }
    }
    if body is not None:
        empty = isinstance(body, EmptyBody)
        operation["requestBody"] = {"required": not empty, "content": _content(type(body))}
    if query is not None:
        operation["parameters"] = [{"in": "query", "schema": query}]
    return operation


def _content(schema: type[Schema], kinds: Sequence[str] = (JSON, MSGPACK)) -> Fields:
    return {kind: {"schema": schema} for kind in kinds}


def describe(app: flask.Flask) -> Api:
    """Make the generator of the document of `app`; groups of calls are registered with it."""
    app.config.update(
        API_TITLE="EverythingFaaS",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {
                "description": (
                    "Functions as a service. The calls of `v0` are what any `requests` + `dill` script speaks; "
                    "`v1` is for clients that batch, wait and cancel. Bodies and answers are JSON or msgpack."
                ),
                "license": {"name": "MIT", "identifier": "MIT"},
            }
        },
    )
    api = Api(app)
    api.spec.components.schema("TaskItem", schema=TaskItem)  # BatchBody refers to it by name
    return api
