"""Mode `push`: the dispatcher places tasks by load on the slots that workers announced when they joined."""

from __future__ import annotations

from collections.abc import Iterable

from everfaas_core.hookspecs import Mode, Transport, hookimpl
from everfaas_core.ports import Link, LinkContext, Uplink, UplinkContext

EVERFAAS_API_VERSION = 1


def _link(context: LinkContext) -> Link:
    from .._zmq.router import RouterLink

    return RouterLink(context, credit="capacity")


def _uplink(context: UplinkContext) -> Uplink:
    from .._zmq.dealer import DealerUplink

    return DealerUplink(context)


@hookimpl
def everfaas_modes() -> Iterable[Mode]:
    """Offer `push` to dispatchers."""
    return [
        Mode(
            name="push",
            summary="the dispatcher places tasks on workers by load",
            factory=_link,
            strategy="least-loaded",
        )
    ]


@hookimpl
def everfaas_transports() -> Iterable[Transport]:
    """Offer `push` to workers."""
    return [Transport(name="push", summary="the dispatcher places tasks on workers by load", factory=_uplink)]
