"""What a worker and its nursery say to each other: records of a fixed size over a socket pair."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple


class Ask(IntEnum):
    """What the worker asks of the nursery."""

    FORK = 1  # start a slot; FORK_FDS come with the record: its ends of the channel, of its tokens, stdout and stderr
    KILL = 2  # kill a slot with all its descendants
    PULSE = 3  # the worker lives; `number` ms without another one, and all slots are killed (0: never)


class Tell(IntEnum):
    """What the nursery tells the worker."""

    BORN = 1  # `number` is the process id
    DIED = 2  # `number` is the wait status
    STILLBORN = 3  # the fork failed; `number` is the errno


class Why(IntEnum):
    """Who ended a slot."""

    ITSELF = 0  # or somebody whom we do not know
    ASKED = 1  # the worker
    FENCED = 2  # the nursery, because the worker was silent


class Request(NamedTuple):
    """`birth` names one life of a slot; `number` is a FORK's cell of the shared memory, or a PULSE's milliseconds."""

    ask: Ask
    birth: int
    number: int


class Report(NamedTuple):
    """`begun` counts the tasks that the slot had begun (DIED only)."""

    tell: Tell
    why: Why
    birth: int
    number: int
    begun: int


_REQUEST: Final = struct.Struct("<BxxxII")
_REPORT: Final = struct.Struct("<BBxxIixxxxQ")
REQUEST_BYTES: Final = _REQUEST.size
FORK_FDS: Final = 4


def pack_request(request: Request) -> bytes:
    """Return the bytes of a request."""
    return _REQUEST.pack(*request)


def pack_report(report: Report) -> bytes:
    """Return the bytes of a report."""
    return _REPORT.pack(*report)


def take_requests(buffer: bytearray) -> list[Request]:
    """Remove all whole requests from the front of `buffer` and return them."""
    whole = len(buffer) // _REQUEST.size * _REQUEST.size
    requests = [Request(Ask(ask), birth, number) for ask, birth, number in _REQUEST.iter_unpack(buffer[:whole])]
    del buffer[:whole]
    return requests


def take_reports(buffer: bytearray) -> list[Report]:
    """Remove all whole reports from the front of `buffer` and return them."""
    whole = len(buffer) // _REPORT.size * _REPORT.size
    reports = [
        Report(Tell(tell), Why(why), birth, number, begun)
        for tell, why, birth, number, begun in _REPORT.iter_unpack(buffer[:whole])
    ]
    del buffer[:whole]
    return reports
