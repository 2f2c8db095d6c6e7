"""The Flask application: every call of the API over one store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flask

from everfaas_core.api.classic import ClassicRoutes
from everfaas_core.api.context import EXTENSION, ApiContext
from everfaas_core.api.crew import Crew
from everfaas_core.api.errors import register_handlers
from everfaas_core.api.fleet import FleetRoutes
from everfaas_core.api.functions import FunctionRoutes
from everfaas_core.api.groups import GroupRoutes
from everfaas_core.api.hub import Hub
from everfaas_core.api.issuing import TaskIds
from everfaas_core.api.logs import LogRoutes
from everfaas_core.api.openapi import Resource, describe
from everfaas_core.api.pages import PageRoutes
from everfaas_core.api.results import WaitRoutes
from everfaas_core.api.security import Guard, require_content_type
from everfaas_core.api.settings import ApiSettings
from everfaas_core.api.tasks import TaskRoutes
from everfaas_core.api.waiting import Waiting
from everfaas_core.ports import Store


def create_app(store: Store, settings: ApiSettings, blueprints: Iterable[flask.Blueprint] = ()) -> flask.Flask:
    """Make the application. `store` need not answer yet; nothing is read from it here.

    `blueprints` are further routes, from plugins: they share the checks and the shape of errors. The context that all
    views share is `app.extensions[EXTENSION]`; its hub must be closed at the end (ApiServer does so).
    """
    app = flask.Flask("everfaas_core.api", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would answer with a redirect
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes_max
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}

    crew = Crew(settings.threads)
    hub = Hub(store, crew.bell)
    guard = Guard(app.wsgi_app, settings.allowed_hosts)
    context = ApiContext(store, settings, hub, Waiting(hub, settings), guard, TaskIds(store), crew)
    app.extensions[EXTENSION] = context
    app.wsgi_app = guard  # type: ignore[method-assign]  # Flask's documented way to add middleware

    app.before_request(require_content_type)
    register_handlers(app)
    _register_routes(app, context, blueprints)
    return app


def _register_routes(app: flask.Flask, context: ApiContext, blueprints: Iterable[flask.Blueprint]) -> None:
    api: Any = describe(app)
    pages = PageRoutes(context)
    for routes in (
        ClassicRoutes(context),
        FunctionRoutes(context),
        TaskRoutes(context),
        WaitRoutes(context),
        GroupRoutes(context),
        LogRoutes(context),
        FleetRoutes(context),
        pages,
    ):
        api.register_blueprint(routes.resource())
    app.register_blueprint(pages.blueprint())
    for blueprint in blueprints:
        if isinstance(blueprint, Resource):
            api.register_blueprint(blueprint)
        else:
            app.register_blueprint(blueprint)
