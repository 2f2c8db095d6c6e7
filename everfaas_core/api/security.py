"""What stands before Flask: the checks that keep web pages away, and the headers on every response."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import flask
import msgspec

from everfaas_core.api.errors import ApiError, CrossSite, HostNotAllowed, UnsupportedMediaType, error_shape
from everfaas_core.api.negotiation import BODY_TYPES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_HOST: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]/@,\s]+?)\.?(:\d{0,5})?")

HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
"""On every response; a view may state its own policy instead."""


class Guard:
    """WSGI middleware around the whole application."""

    def __init__(self, app: WSGIApplication, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {_bare_host(host) for host in allowed_hosts}
        self._any_address = False

    def allow(self, host: str) -> None:
        """Allow the address that the server is bound to; a wildcard allows all literal addresses.

        DNS rebinding needs a name, so a literal address in the Host header is never one.
        """
        if host in ("0.0.0.0", "::", ""):  # noqa: S104  # compared with, not bound to
            self._any_address = True
        else:
            self._hosts.add(_bare_host(f"[{host}]" if ":" in host and not host.startswith("[") else host))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Refuse, or pass on to the application; either way add the headers."""

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            present = {name.lower() for name, _ in headers}
            headers.extend(header for header in HEADERS if header[0].lower() not in present)
            return start_response(status, headers, *exc_info)

        try:
            self._check(environ)
        except ApiError as error:
            body = error_bytes(error)
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            start(f"{error.status} {HTTPStatus(error.status).phrase}", headers)
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
        return self._app(environ, start)

    def _check(self, environ: WSGIEnvironment) -> None:
        host = _bare_host(environ.get("HTTP_HOST", ""))
        if host not in self._hosts and not (self._any_address and _is_address(host)):
            raise HostNotAllowed(
                "the Host header names a host that this server does not go by",
                hint="call it by an allowed name, or start the API with --allow-host NAME",
            )
        if environ["REQUEST_METHOD"] in SAFE_METHODS:
            return
        if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
            raise CrossSite("a page of another site may not change anything here")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise UnsupportedMediaType("bodies may not be compressed", hint="send it without Content-Encoding")


def error_bytes(error: ApiError) -> bytes:
    """Return the JSON body of an error that is answered without Flask."""
    return msgspec.json.encode(error_shape(error.code, error.message, hint=error.hint, details=error.details))


def require_content_type() -> None:
    """Refuse state-changing calls that a web form could make, for routes that exist. Called before each request."""
    request = flask.request
    if request.method in SAFE_METHODS or request.routing_exception is not None:
        return
    if request.mimetype not in BODY_TYPES:
        raise UnsupportedMediaType(
            "state-changing calls need a content type of ours, also those with an empty body",
            hint="set Content-Type: application/json (or application/msgpack)",
        )


def _bare_host(text: str) -> str:
    """Return a Host header's host: without port, without a trailing dot, in lower case; "" when it is malformed."""
    match = _HOST.fullmatch(text.strip().lower())
    return match["host"] if match else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
