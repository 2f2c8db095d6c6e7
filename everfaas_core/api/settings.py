"""What an operator can set about the API, and every limit it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

THREADS_KEPT_FREE: Final = 8  # never held by long polls, so that everything else still answers
BATCH_TASKS_MAX: Final = 10_000
WAIT_IDS_MAX: Final = 10_000
WAIT_BYTES_MAX: Final = 64 * 1024 * 1024  # results in one answer of `tasks:wait`; the rest comes with the next call
PAGE_MAX: Final = 500
RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """Settings of one API process. The defaults are those of the command line."""

    body_bytes_max: int = 32 * 1024 * 1024
    header_bytes_max: int = 64 * 1024
    queue_max: int = 10_000_000  # queued tasks; beyond it submits get 429
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")  # the bound address is always allowed, too
    threads: int = 48
    connection_limit: int = 1000
    channel_timeout_s: int = 120  # an idle connection is closed after it
    receive_s_max: float = 60.0  # for a request to come in completely, head and body
    wait_s_max: float = 60.0  # the longest long-poll; longer wishes are shortened
    reread_s: float = 5.0  # beneath the notifications: how often a long-poll reads the store anyway
    drain_s: float = 10.0  # for running requests, once the server was asked to stop

    @property
    def waiters_max(self) -> int:
        """How many requests may wait at once; each holds a thread."""
        return max(1, self.threads - THREADS_KEPT_FREE)
