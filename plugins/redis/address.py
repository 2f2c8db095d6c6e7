"""What a store URL says: where the server is, how to log in, and which keys are ours."""

from __future__ import annotations

import socket
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from everfaas_core.model.errors import ConfigError

DEFAULT_PREFIX: Final = "ef:"

_EXAMPLE: Final = "such as redis://127.0.0.1:6379/0 or unix:///run/valkey.sock"
_SCHEMES: Final = ("redis", "rediss", "unix")
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"})
_KEEPALIVE_S: Final = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))


class Address(Struct, frozen=True, kw_only=True):
    """A parsed URL. `shown` has no password in it; `settings` are redis-py's arguments for a connection."""

    scheme: str
    shown: str
    prefix: str
    settings: dict[str, Any]


def parse_url(url: str) -> Address:
    """Parse a store URL. Raises ConfigError that says what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the store URL is not valid: {error}", hint=f"--store takes a URL {_EXAMPLE}") from error
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"the store URL has an unknown scheme: {parts.scheme!r}", hint=f"--store takes {_EXAMPLE}")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    prefix = query.pop("prefix", DEFAULT_PREFIX)
    settings: dict[str, Any] = {}
    for name in ("username", "password"):
        value = getattr(parts, name) or None
        if value is not None:
            settings[name] = unquote(value)
    path = unquote(parts.path)
    if parts.scheme == "unix":
        if not path:
            raise ConfigError("the store URL names no socket", hint="write it as unix:///PATH")
        settings |= {"path": path, "db": _database(query.pop("db", "0"))}
        shown = f"unix://{path}"
    else:
        settings |= {"host": parts.hostname or "127.0.0.1", "port": port or 6379}
        settings["db"] = _database(query.pop("db", path.strip("/") or "0"))
        settings |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
        shown = f"{parts.scheme}://{settings['host']}:{settings['port']}/{settings['db']}"
    if parts.scheme == "rediss":
        settings |= {name: query.pop(name) for name in _TLS_OPTIONS & query.keys()}
    if query:
        raise ConfigError(
            f"the store URL has an unknown option: {', '.join(sorted(query))}",
            hint="known ones are prefix and db, and with rediss:// " + ", ".join(sorted(_TLS_OPTIONS)),
        )
    return Address(scheme=parts.scheme, shown=shown, prefix=prefix, settings=settings)


def _database(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"the store URL names no database number: {text!r}", hint=f"--store takes a URL {_EXAMPLE}")
    return int(text)


def _keepalive() -> dict[int, int]:
    """Let the kernel notice within seconds that a silent subscription's server is gone."""
    return {getattr(socket, name): value for name, value in _KEEPALIVE_S if hasattr(socket, name)}
