"""What a browser sees: the overview at `/`, and `/docs`. No file comes from another host, no script is inline."""

from __future__ import annotations

from importlib import resources
from typing import Final

import flask

from everfaas_core.api.answers import RootAnswer
from everfaas_core.api.context import ApiContext
from everfaas_core.api.errors import NotReady
from everfaas_core.api.fleet import fleet_body, missing_part
from everfaas_core.api.negotiation import answer
from everfaas_core.api.openapi import Resource
from everfaas_core.model.errors import StoreRefused, StoreUnavailable
from everfaas_core.version import __version__

FUNCTIONS_SHOWN: Final = 20
ASSET_AGE_S: Final = 3600

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "docs.js": "text/javascript",
    "overview.css": "text/css",
}
_BASE_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OVERVIEW_POLICY: Final = f"{_BASE_POLICY}; style-src 'self'; img-src data:"
# Swagger UI sets styles from its script, draws with data: images, and calls the API of this very server.
_DOCS_POLICY: Final = (
    f"{_BASE_POLICY}; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)


class PageRoutes:
    """`/`, `/docs` and their files."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def resource(self) -> Resource:
        """Return the call that is also for programs."""
        routes = Resource("root", __name__, description="Where to begin.")
        routes.call("GET", "/", self.get_root, returns=RootAnswer)
        return routes

    def blueprint(self) -> flask.Blueprint:
        """Return the pages that are for browsers only."""
        pages = flask.Blueprint("pages", __name__)
        pages.add_url_rule("/docs", view_func=self.get_docs)
        pages.add_url_rule("/assets/<name>", view_func=self.get_asset)
        return pages

    def get_root(self) -> flask.Response:
        """Say what this is: a page for browsers, JSON for everybody else."""
        if "text/html" in flask.request.headers.get("Accept", ""):
            return self._overview()
        return answer(
            {
                "message": "EverythingFaaS is running",
                "version": __version__,
                "docs": "/docs",
                "openapi": "/openapi.json",
            }
        )

    def get_docs(self) -> flask.Response:
        """Show the OpenAPI document."""
        return _page("docs.html", _DOCS_POLICY)

    def get_asset(self, name: str) -> flask.Response:
        """Return one of the vendored files."""
        kind = _ASSETS.get(name)
        if kind is None:
            flask.abort(404)
        content = resources.files(__package__).joinpath("assets", name).read_bytes()
        response = flask.Response(content, content_type=f"{kind}; charset=utf-8")
        response.headers["Cache-Control"] = f"public, max-age={ASSET_AGE_S}"
        return response

    def _overview(self) -> flask.Response:
        """Everything on it is attacker-controlled text at heart; the template escapes all of it."""
        store = self._context.store
        try:
            health, fleet = store.health(), fleet_body(self._context)
            functions, cursor = store.list_functions(None, FUNCTIONS_SHOWN)
        except (StoreUnavailable, StoreRefused):
            return _page("overview.html", _OVERVIEW_POLICY, NotReady.status, version=__version__, away=True)
        return _page(
            "overview.html",
            _OVERVIEW_POLICY,
            version=__version__,
            away=False,
            health=health,
            missing=missing_part(health),
            fleet=fleet,
            functions=functions,
            more_functions=cursor is not None,
        )


def _page(template: str, policy: str, status: int = 200, **facts: object) -> flask.Response:
    html = flask.render_template(template, **facts)
    response = flask.Response(html, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy
    response.headers["Vary"] = "Accept"
    return response
