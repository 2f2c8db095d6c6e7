"""The one shape of errors, whoever raises them: a view, Flask, werkzeug, waitress or the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from everfaas_core.api.negotiation import answer
from everfaas_core.api.settings import RETRY_AFTER_S
from everfaas_core.model.errors import (
    EverfaasError,
    IdempotencyConflict,
    QueueFull,
    StoreRefused,
    StoreUnavailable,
    UnknownFunction,
)

LOG_EVERY_S: Final = 5.0

_log = logging.getLogger(__name__)

_CODES: Final = {
    400: "malformed_request",
    404: "no_such_route",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    431: "headers_too_large",
    501: "not_implemented",
}


class ApiError(EverfaasError):
    """A request that can't be granted. `code` is stable; `details` is for programs, `hint` for people."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class InvalidRequest(ApiError):
    """The body or the query does not fit its schema."""

    code = "invalid_request"
    status = 422


class BadPayload(ApiError):
    """A payload is empty, not base64, not one complete pickle stream, or plainly not a callable."""

    code = "bad_payload"
    status = 400


class UnsupportedMediaType(ApiError):
    """The content type or encoding of the body is none of ours."""

    code = "unsupported_media_type"
    status = 415


class NoSuchFunction(ApiError):
    """No function has this id."""

    code = "unknown_function"
    status = 404


class NoSuchTask(ApiError):
    """No task ever had this id."""

    code = "unknown_task"
    status = 404


class TaskExpired(ApiError):
    """There was such a task; its retention has passed."""

    code = "task_expired"
    status = 410


class NotRetryable(ApiError):
    """The task has not ended as FAILED or CANCELLED."""

    code = "not_retryable"
    status = 409


class NoSuchWorker(ApiError):
    """No dispatcher that lives has reported a worker with this id."""

    code = "unknown_worker"
    status = 404


class TooManyWaiters(ApiError):
    """All threads that long-polls may hold are held."""

    code = "too_many_waiters"
    status = 429
    retry_after_s = RETRY_AFTER_S


class HostNotAllowed(ApiError):
    """The Host header names no host that this server goes by: perhaps DNS rebinding."""

    code = "host_not_allowed"
    status = 403


class CrossSite(ApiError):
    """A page of another site tried to change something."""

    code = "cross_site"
    status = 403


class NotReady(ApiError):
    """A task submitted now would not run at once."""

    code = "not_ready"
    status = 503
    retry_after_s = RETRY_AFTER_S


def error_shape(
    code: str, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the body of an error: `error` for programs, `detail` for old clients."""
    error: dict[str, Any] = {"code": code, "message": message}
    if details:
        error["details"] = details
    if hint:
        error["hint"] = hint
    return {"error": error, "detail": f"{message} ({hint})" if hint else message}


def error_answer(error: ApiError) -> flask.Response:
    """Return the response of an error."""
    shape = error_shape(error.code, error.message, hint=error.hint, details=error.details)
    return _with_retry(answer(shape, error.status), error.retry_after_s)


def register_handlers(app: flask.Flask) -> None:
    """Give every error of `app` its status and the one shape."""
    app.register_error_handler(ApiError, error_answer)
    app.register_error_handler(StoreUnavailable, _StoreAway())
    app.register_error_handler(StoreRefused, _on_store_refused)
    app.register_error_handler(UnknownFunction, _on_unknown_function)
    app.register_error_handler(IdempotencyConflict, _on_conflict)
    app.register_error_handler(QueueFull, _on_queue_full)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_unexpected)


class _StoreAway:
    """Answers 503, and logs it now and then rather than with each request of each polling client."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, error: StoreUnavailable) -> flask.Response:
        if time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + LOG_EVERY_S
            _log.warning("requests get 503: %s", error)
        hint = "try again; a submit that carries an idempotency_key can be repeated safely"
        shape = error_shape(error.code, "the store does not answer", hint=hint)
        return _with_retry(answer(shape, 503), RETRY_AFTER_S)


def _on_store_refused(error: StoreRefused) -> flask.Response:
    _log.error("store refused: %s", error)
    shape = error_shape(error.code, "the store is unfit for use", hint="see the log of the API server")
    return _with_retry(answer(shape, 503), RETRY_AFTER_S)


def _on_unknown_function(error: UnknownFunction) -> flask.Response:
    hint = error.hint or "register the function first"
    return answer(error_shape(error.code, error.message, hint=hint), 404)


def _on_conflict(error: IdempotencyConflict) -> flask.Response:
    return answer(error_shape(error.code, error.message, hint=error.hint), 409)


def _on_queue_full(error: QueueFull) -> flask.Response:
    hint = error.hint or "try again when some tasks have run"
    return _with_retry(answer(error_shape(error.code, error.message, hint=hint), 429), RETRY_AFTER_S)


def _on_http_error(error: HTTPException) -> flask.Response | HTTPException:
    if isinstance(error, RequestRedirect) or error.code is None:
        return error
    status = error.code
    code = _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
    message = f"there is nothing at {flask.request.path[:200]!r}" if status == 404 else error.description
    hint = "GET /openapi.json lists all calls" if status in (404, 405) else None
    response = answer(error_shape(code, message or HTTPStatus(status).phrase, hint=hint), status)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _on_unexpected(error: Exception) -> flask.Response:
    _log.error("a request failed: %s %s", flask.request.method, flask.request.path[:200], exc_info=error)
    return answer(error_shape("internal", "the server made a mistake; its log says more"), 500)


def _with_retry(response: flask.Response, retry_after_s: int | None) -> flask.Response:
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response
