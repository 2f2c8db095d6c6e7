"""The one frozen set of settings that a command runs with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, field

from everfaas_core.model.records import DEFAULT_MAX_ATTEMPTS, DEFAULT_RESULT_TTL_S

LIVENESS_BEATS: Final = 5
"""How many heartbeats may be missed before a worker counts as lost, unless `liveness` says otherwise."""

DEFAULT_BODY_BYTES_MAX: Final = 32 * 1024 * 1024


class PluginValues(Struct, frozen=True, kw_only=True):
    """Values meant for plugins, not validated: only the schema of a selected plugin can do that (`plugin_options`)."""

    file: str = ""  # the config file's path
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # its [plugin.NAME] tables
    environ: Mapping[str, str] = field(default_factory=dict)  # EVERFAAS_… variables that are no key of ours
    flags: Mapping[str, Any] = field(default_factory=dict)  # "--pull-window" → value


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of a role. Field = key of the config file, with the unit appended (`heartbeat` → `heartbeat_s`)."""

    mode: str = "local"
    slots: int = 4
    workers: int = 1  # worker processes that `everfaas up` starts, in modes that need workers
    host: str = "127.0.0.1"  # the API's address
    port: int = 8000  # the API's port; 0: any free one
    url: str = "http://127.0.0.1:8000"  # the API that client commands call
    processes: int = 1  # API processes that share the port
    worker_host: str = "127.0.0.1"  # where a dispatcher listens for workers
    worker_port: int = 5555
    store: str = "redis://127.0.0.1:6379/0"
    store_port: int = 6379  # of `everfaas store`
    data: str | None = None  # the embedded store's directory; None: under the user's state directory
    fsync: str = "everysec"  # of the embedded store
    path: tuple[str, ...] = ()  # absolute folders for the slots' sys.path, the current one first
    task_deadline_s: float | None = None  # longest run of one attempt, unless the function or task says otherwise
    heartbeat_s: float = 0.5
    liveness_s: float = LIVENESS_BEATS * 0.5
    lease_s: float = 3.0  # how long a dispatcher's claims outlive its last sign of life
    drain_s: float = 10.0  # what each role gets to finish in when `everfaas up` ends
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    strategy: str | None = None  # None: what the mode prefers
    source: tuple[str, ...] = ()  # task sources beside the dispatcher
    plugins: tuple[str, ...] = ()  # -p NAME, -p no:NAME
    insecure: bool = False
    allow_host: tuple[str, ...] = ()  # names that the API's Host header may have besides its own address
    result_ttl_s: float = DEFAULT_RESULT_TTL_S
    body_bytes_max: int = DEFAULT_BODY_BYTES_MAX
    log_format: str = "text"
    log_level: str = "info"

    sources: Mapping[str, str] = field(default_factory=dict)  # key → "default", "--slots", "EVERFAAS_SLOTS", a file
    config_file: str | None = None
    plugin_values: PluginValues = field(default_factory=PluginValues)
    warnings: tuple[str, ...] = ()  # slips that are no errors, such as EVERFAAS_SLOT
