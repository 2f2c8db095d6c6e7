"""Functions: register them, list them, look at one."""

from __future__ import annotations

import flask
import msgspec

from everfaas_core.api.answers import FunctionAnswer, FunctionCreated, FunctionList
from everfaas_core.api.context import ApiContext, path_function_id
from everfaas_core.api.errors import NoSuchFunction
from everfaas_core.api.negotiation import answer
from everfaas_core.api.openapi import Fields, Resource, invalid
from everfaas_core.api.payloads import function_payload
from everfaas_core.api.schemas import FunctionBody, PageQuery
from everfaas_core.model.ids import FunctionId, function_id
from everfaas_core.model.records import FunctionOptions, FunctionRecord
from everfaas_core.ports import Store


def register(store: Store, name: str, payload: str | bytes, options: FunctionOptions) -> tuple[FunctionId, bool]:
    """Store a function under the id of its content; return the id, and whether it is new. Raises BadPayload."""
    code = function_payload(payload)
    content_id = function_id(name, code, msgspec.msgpack.encode(options))
    record = FunctionRecord(function_id=content_id, name=name, payload=code, options=options)
    return content_id, store.put_function(record)


class FunctionRoutes:
    """`/v1/functions`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def resource(self) -> Resource:
        """Return the calls."""
        routes = Resource("functions", __name__, description="Registered code: immutable, content-hashed.")
        routes.call(
            "POST",
            "/v1/functions",
            self.create_function,
            body=FunctionBody,
            returns=FunctionCreated,
            status=201,
            errors=(400,),
        )
        routes.call("GET", "/v1/functions", self.list_functions, query=PageQuery, returns=FunctionList)
        routes.call("GET", "/v1/functions/<function_id>", self.get_function, returns=FunctionAnswer, errors=(404,))
        return routes

    def create_function(self, body: Fields) -> flask.Response:
        """Register a function with options.

        The same name, code and options registered twice is one function with one id.
        """
        name, payload = body.pop("name"), body.pop("payload")
        retry_on = tuple(body.pop("retry_on", ()))
        options = FunctionOptions(**body, retry_on=retry_on)
        content_id, created = register(self._context.store, name, payload, options)
        return answer({"function_id": content_id, "created": created}, 201)

    def list_functions(self, query: Fields) -> flask.Response:
        """List functions, newest first, a page at a time."""
        try:
            found, cursor = self._context.store.list_functions(query.get("cursor"), query["limit"])
        except ValueError:
            raise invalid("the query", {"cursor": "Is not one that a page before this has given."}) from None
        return answer({"functions": [_body(record) for record in found], "cursor": cursor})

    def get_function(self, function_id: str) -> flask.Response:
        """Return one function, without its code."""
        known_id = path_function_id(function_id)
        record = self._context.store.functions([known_id])[0]
        if record is None:
            raise NoSuchFunction(f"there is no function {known_id}", hint="register it first")
        return answer(_body(record))


def _body(record: FunctionRecord) -> Fields:
    return {
        "function_id": record.function_id,
        "name": record.name,
        "options": record.options,
        "payload_size_bytes": len(record.payload),
        "created_ms": record.created_ms,
    }
