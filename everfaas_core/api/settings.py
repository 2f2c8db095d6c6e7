"""What an operator can set about the API, and every limit it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

BATCH_TASKS_MAX: Final = 10_000
WAIT_IDS_MAX: Final = 10_000
WAIT_BYTES_MAX: Final = 64 * 1024 * 1024  # results in one answer of `tasks:wait`; the rest comes with the next call
PAGE_MAX: Final = 500
RETRY_AFTER_S: Final = 1

FILES_KEPT_FREE: Final = 128  # descriptors that are not connections: the store's, modules that are being imported
CONNECTIONS_KEPT_FREE: Final = 100  # never held by requests that wait, so that everything else still gets in


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """Settings of one API process. The defaults are those of the command line."""

    body_bytes_max: int = 32 * 1024 * 1024
    header_bytes_max: int = 64 * 1024
    queue_max: int = 10_000_000  # queued tasks; beyond it submits get 429
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")  # the bound address is always allowed, too
    threads: int = 16  # requests that are worked on at once; those that wait are not counted
    waiters_max: int = 1000  # requests that wait for tasks at once; each has a thread while it does
    streams_max: int = 100  # group streams at once, apart from those
    connection_limit: int = 2000
    channel_timeout_s: int = 120  # an idle connection is closed after it
    receive_s_max: float = 60.0  # for a request to come in completely, head and body
    send_s_max: float = 60.0  # for a client to take something of a stream that is held up for it
    wait_s_max: float = 60.0  # the longest long-poll; longer wishes are shortened
    reread_s: float = 10.0  # beneath the notifications: how often a long-poll reads the store anyway
    heartbeat_s: float = 5.0  # a stream that has nothing to say for so long says that
    drain_s: float = 10.0  # for running requests, once the server was asked to stop

    @property
    def files_wanted(self) -> int:
        """How many files the process should be allowed to open."""
        return self.connection_limit + FILES_KEPT_FREE

    def fitted(self, files: int) -> ApiSettings:
        """Return settings that a process can keep that may open `files` files.

        Beyond that number, accepting would fail again and again, and requests that wait would keep all others out.
        """
        connections = max(1, min(self.connection_limit, files - FILES_KEPT_FREE))
        streams = min(self.streams_max, max(1, (connections - CONNECTIONS_KEPT_FREE) // 4))
        waiters = min(self.waiters_max, max(1, connections - CONNECTIONS_KEPT_FREE - streams))
        return replace(self, connection_limit=connections, streams_max=streams, waiters_max=waiters)
