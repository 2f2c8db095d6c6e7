"""The table of keys: how each is called in a file, in the environment and on the command line, and what it may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

Parser = Callable[[object], Any]
"""Text or a TOML value → the setting's value. Raises ValueError for what is not allowed; the Key says what is."""

SLOTS_MAX: Final = 1024
WORKERS_MAX: Final = 256
PROCESSES_MAX: Final = 64
SECONDS_MAX: Final = 366 * 24 * 3600
BODY_BYTES_LIMIT: Final = 2**31
PORT_MAX: Final = 65535


class Key(Struct, frozen=True, kw_only=True):
    """One setting. `name` is its key in the file; `EVERFAAS_NAME` and `--name` follow from it."""

    name: str
    parse: Parser
    allowed: str  # what an error message says is allowed
    help: str
    metavar: str = "N"
    field: str = ""  # of Settings, when it differs from the name by its unit
    flag: str = ""  # when it differs from the name
    short: str = ""
    switch: bool = False  # a flag without a value
    repeat: bool = False  # may be given more than once; a list in the file
    separator: str = ","  # between the values in an environment variable, with `repeat`

    @property
    def attribute(self) -> str:
        """The field of Settings."""
        return self.field or self.name

    @property
    def option(self) -> str:
        """The long flag."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"EVERFAAS_{self.name.upper()}"


# ── parsers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def whole(low: int, high: int) -> Parser:
    """Parse a whole number in a closed range."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def seconds(value: object) -> float:
    """Parse a duration in seconds, more than 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    number = float(value)
    if not 0 < number <= SECONDS_MAX:  # NaN fails both
        raise ValueError
    return number


def seconds_or_none(value: object) -> float | None:
    """Parse a duration, or `none`."""
    return None if value == "none" else seconds(value)


def text(value: object) -> str:
    """Parse a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def host(value: object) -> str:
    """Parse an address or host name; brackets around an IPv6 address are taken off."""
    name = text(value)
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    if any(character in name for character in "/@ \t[]") or "://" in name:
        raise ValueError
    return name


def one_of(*words: str) -> Parser:
    """Parse one of a few words, in any case."""

    def parse(value: object) -> str:
        word = text(value).lower()
        if word not in words:
            raise ValueError
        return word

    return parse


def yes_or_no(value: object) -> bool:
    """Parse a truth value."""
    if isinstance(value, bool):
        return value
    word = text(value).lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError


def store_url(value: object) -> str:
    """Parse a store's URL: `SCHEME://…`, or a bare scheme."""
    url = text(value)
    scheme, colon, rest = url.partition(":")
    if not scheme.replace("+", "").replace("-", "").isalnum() or (colon and not rest.startswith("//")):
        raise ValueError
    return url


def api_url(value: object) -> str:
    """Parse the address of an API: `http://HOST:PORT`, https too, with a path in front of a proxy's prefix."""
    from urllib.parse import urlsplit

    url = text(value).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or parts.query or parts.fragment:
        raise ValueError
    return url


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────

_WHOLE_PORT: Final = f"a whole number from 0 (any free port) to {PORT_MAX}"
_DURATION: Final = "seconds, more than 0"
_NAME: Final = "a name"

_TABLE: Final = (
    Key(
        name="mode",
        short="-m",
        parse=text,
        allowed="the name of an installed mode",
        metavar="NAME",
        help="Dispatch mode: local, pull, push, or one that a plugin brings.",
    ),
    Key(
        name="slots",
        short="-w",
        parse=whole(1, SLOTS_MAX),
        allowed=f"a whole number from 1 to {SLOTS_MAX}",
        help="Slots: how many tasks run at once (per worker, in modes that have workers).",
    ),
    Key(
        name="workers",
        parse=whole(0, WORKERS_MAX),
        allowed=f"a whole number from 0 to {WORKERS_MAX}",
        help="Worker processes to start on this machine, in modes that have workers.",
    ),
    Key(name="host", parse=host, allowed="an address or host name", metavar="ADDR", help="The API's address."),
    Key(
        name="port",
        parse=whole(0, PORT_MAX),
        allowed=_WHOLE_PORT,
        help="The API's port; 0 picks a free one and prints it.",
    ),
    Key(
        name="processes",
        parse=whole(1, PROCESSES_MAX),
        allowed=f"a whole number from 1 to {PROCESSES_MAX}",
        help="API processes that share the port.",
    ),
    Key(
        name="worker_host",
        parse=host,
        allowed="an address or host name",
        metavar="ADDR",
        help="Address on which the dispatcher listens for workers.",
    ),
    Key(
        name="worker_port",
        parse=whole(0, PORT_MAX),
        allowed=_WHOLE_PORT,
        help="Port on which the dispatcher listens for workers; 0 picks a free one and prints it.",
    ),
    Key(
        name="url",
        parse=api_url,
        allowed="the address of an API, such as http://127.0.0.1:8000",
        metavar="URL",
        help="The API that client commands call.",
    ),
    Key(
        name="store",
        parse=store_url,
        allowed="redis://HOST:PORT/DB, rediss://…, unix:///SOCKET, embedded, memory, or a plugin's scheme",
        metavar="URL",
        help="Store: redis://HOST:PORT/DB, unix:///SOCKET, embedded, memory.",
    ),
    Key(
        name="store_port",
        parse=whole(0, PORT_MAX),
        allowed=_WHOLE_PORT,
        help="Loopback port of `everfaas store`; 0 picks a free one and prints it.",
    ),
    Key(
        name="data",
        parse=text,
        allowed="a folder",
        metavar="DIR",
        help="Folder of the embedded store's data.",
    ),
    Key(
        name="fsync",
        parse=one_of("everysec", "always"),
        allowed="everysec or always",
        metavar="HOW",
        help="When the embedded store flushes to disk: everysec, or always (slower, loses nothing to a power cut).",
    ),
    Key(
        name="path",
        repeat=True,
        separator=os.pathsep,
        parse=text,
        allowed="an existing folder",
        metavar="DIR",
        help="Folder from which slots may import modules, besides the current one. Repeatable.",
    ),
    Key(
        name="task_deadline",
        field="task_deadline_s",
        parse=seconds_or_none,
        allowed=f"{_DURATION}, or none",
        metavar="S",
        help="Longest run of a task, in seconds, unless its function says otherwise.",
    ),
    Key(
        name="heartbeat",
        field="heartbeat_s",
        parse=seconds,
        allowed=_DURATION,
        metavar="S",
        help="Seconds between two signs of life.",
    ),
    Key(
        name="liveness",
        field="liveness_s",
        parse=seconds,
        allowed=_DURATION,
        metavar="S",
        help="Silence after which a worker counts as lost, in seconds; 5 heartbeats unless set.",
    ),
    Key(
        name="lease",
        field="lease_s",
        parse=seconds,
        allowed=_DURATION,
        metavar="S",
        help="Silence after which other dispatchers take over a dispatcher's tasks, in seconds.",
    ),
    Key(
        name="drain",
        field="drain_s",
        parse=seconds,
        allowed=_DURATION,
        metavar="S",
        help="Seconds that running tasks get to end when `everfaas up` is stopped; then they go back to the queue.",
    ),
    Key(
        name="max_attempts",
        parse=whole(1, 1000),
        allowed="a whole number from 1 to 1000",
        help="Attempts that lost workers and crashed slots may use up before a task fails.",
    ),
    Key(
        name="strategy",
        parse=text,
        allowed="the name of an installed strategy",
        metavar="NAME",
        help="Placement strategy, unless the mode's own is right.",
    ),
    Key(
        name="source",
        repeat=True,
        parse=text,
        allowed="the name of an installed task source",
        metavar="NAME",
        help="Task source to run beside the dispatcher. Repeatable.",
    ),
    Key(
        name="plugins",
        flag="--plugin",
        repeat=True,
        parse=text,
        allowed="NAME to load a plugin, no:NAME to block one",
        metavar="NAME",
        help="Load a plugin (NAME), or block one (no:NAME). Repeatable.",
    ),
    Key(
        name="insecure",
        switch=True,
        parse=yes_or_no,
        allowed="true or false",
        help="Trust the network: allow listening beyond loopback without authentication.",
    ),
    Key(
        name="allow_host",
        repeat=True,
        parse=host,
        allowed="a host name or address",
        metavar="NAME",
        help="Further name by which clients may address the API (Host header). Repeatable.",
    ),
    Key(
        name="result_ttl",
        field="result_ttl_s",
        parse=seconds,
        allowed=_DURATION,
        metavar="S",
        help="How long results are kept, in seconds, unless the function or task says otherwise.",
    ),
    Key(
        name="body_bytes_max",
        parse=whole(1024, BODY_BYTES_LIMIT),
        allowed=f"a whole number from 1024 to {BODY_BYTES_LIMIT}",
        metavar="BYTES",
        help="Largest request that the API accepts, in bytes.",
    ),
    Key(name="log_format", parse=one_of("text", "json"), allowed="text or json", metavar="HOW", help="text or json."),
    Key(
        name="log_level",
        parse=one_of("debug", "info", "warning", "error"),
        allowed="debug, info, warning or error",
        metavar="LEVEL",
        help="debug, info, warning or error.",
    ),
)

KEYS: Final[Mapping[str, Key]] = {key.name: key for key in _TABLE}
