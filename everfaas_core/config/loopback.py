"""Who can be reached from where: nothing listens beyond loopback unless the operator trusts the network."""

from __future__ import annotations

import ipaddress

from everfaas_core.model.errors import InsecureError


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own. Names other than localhost are not looked up: they are not."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def require_loopback(what: str, host: str, *, flag: str, insecure: bool) -> str | None:
    """Allow `what` ("the API") to listen on `host`: return None, or a warning to show, or raise InsecureError.

    `flag` names the setting that gave the address.
    """
    if is_loopback(host):
        return None
    if insecure:
        return f"{what} listens on {host} without authentication: whoever can reach it can run code here"
    raise InsecureError(
        f"{what} would listen on {host}, beyond this machine, without authentication",
        hint=f"whoever reaches it could run code here. Leave {flag} at 127.0.0.1, "
        "or say that you trust the network: --insecure (EVERFAAS_INSECURE=1)",
    )
