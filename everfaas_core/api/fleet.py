"""The fleet and the server's health."""

from __future__ import annotations

import flask
import msgspec

from everfaas_core.api.answers import FleetAnswer, HealthAnswer, ReadyAnswer, WorkerDraining
from everfaas_core.api.context import ApiContext, path_worker_id
from everfaas_core.api.errors import NoSuchWorker, NotReady
from everfaas_core.api.negotiation import answer
from everfaas_core.api.openapi import Fields, Resource
from everfaas_core.ports import StoreHealth


class FleetRoutes:
    """`/v1/workers`, `/healthz` and `/readyz`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def resource(self) -> Resource:
        """Return the calls."""
        routes = Resource("fleet", __name__, description="Dispatchers, workers, health.")
        routes.call("GET", "/v1/workers", self.list_workers, returns=FleetAnswer)
        routes.call(
            "POST",
            "/v1/workers/<worker_id>/drain",
            self.drain_worker,
            returns=WorkerDraining,
            status=202,
            errors=(404,),
        )
        routes.call("GET", "/healthz", self.get_health, returns=HealthAnswer)
        routes.call("GET", "/readyz", self.get_readiness, returns=ReadyAnswer)
        return routes

    def list_workers(self) -> flask.Response:
        """List the dispatchers that live, and the workers that they see."""
        return answer(fleet_body(self._context))

    def drain_worker(self, worker_id: str) -> flask.Response:
        """Ask a worker to leave: it finishes what it runs, is given nothing new, and ends.

        This only asks: the worker has left when `GET /v1/workers` no longer lists it. Repeating it changes nothing.
        """
        known_id = path_worker_id(worker_id)
        if not self._context.store.drain_worker(known_id):
            raise NoSuchWorker(f"there is no worker {known_id}", hint="GET /v1/workers lists them")
        return answer({"worker_id": known_id, "draining": True}, 202)

    def get_health(self) -> flask.Response:
        """Tell that this process answers. Does not touch the store."""
        return answer({"status": "ok"})

    def get_readiness(self) -> flask.Response:
        """Tell whether a task submitted now would run: the store answers, and a dispatcher has a slot.

        Otherwise 503, and `error.message` says which part is missing.
        """
        if self._context.hub.draining:
            raise NotReady("the API server is shutting down")
        health = self._context.store.health()
        missing = missing_part(health)
        if missing:
            raise NotReady(missing[0], hint=missing[1], details=_readiness(health))
        return answer(_readiness(health))


def missing_part(health: StoreHealth) -> tuple[str, str] | None:
    """Return what keeps tasks from running, and the remedy; None when nothing does."""
    if not health.dispatchers:
        return "no dispatcher is running", "start one: python run_dispatcher.py -m local (or everfaas up)"
    if not health.slots:
        return "no worker has joined a dispatcher", "start one: python run_worker.py MODE SLOTS URL"
    return None


def fleet_body(context: ApiContext) -> Fields:
    """Return the fleet as `GET /v1/workers` answers it."""
    reports = context.store.fleet()
    return {
        "dispatchers": [
            {
                "dispatcher_id": report.dispatcher_id,
                "mode": report.mode,
                "host": report.host,
                "pid": report.pid,
                "started_ms": report.started_ms,
                "address": report.address,
            }
            for report in reports
        ],
        "workers": [
            {**msgspec.structs.asdict(worker), "dispatcher_id": report.dispatcher_id, "mode": report.mode}
            for report in reports
            for worker in report.workers
        ],
    }


def _readiness(health: StoreHealth) -> Fields:
    return {
        "ready": missing_part(health) is None,
        "store": health.kind,
        "queued": health.queued,
        "dispatchers": health.dispatchers,
        "slots": health.slots,
        "ended": health.ended,
    }
