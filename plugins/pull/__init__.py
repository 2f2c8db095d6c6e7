"""Mode `pull`: workers ask for exactly what they can run now, and whoever asked first is served first."""

from __future__ import annotations

from collections.abc import Iterable

from everfaas_core.hookspecs import Mode, Transport, hookimpl
from everfaas_core.ports import Link, LinkContext, Uplink, UplinkContext

EVERFAAS_API_VERSION = 1


def _link(context: LinkContext) -> Link:
    from .._zmq.router import RouterLink

    return RouterLink(context, credit="granted")


def _uplink(context: UplinkContext) -> Uplink:
    from .._zmq.dealer import DealerUplink

    return DealerUplink(context)


@hookimpl
def everfaas_modes() -> Iterable[Mode]:
    """Offer `pull` to dispatchers."""
    return [Mode(name="pull", summary="workers ask for what they can run now", factory=_link, strategy="round-robin")]


@hookimpl
def everfaas_transports() -> Iterable[Transport]:
    """Offer `pull` to workers."""
    return [Transport(name="pull", summary="workers ask for what they can run now", factory=_uplink)]
