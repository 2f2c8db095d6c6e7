"""What a session wants its agent to do, in order."""

from __future__ import annotations

from msgspec import Struct

from everfaas_core.wire import messages as m
from everfaas_core.wire.messages import Held


class Say(Struct, frozen=True):
    message: m.ToDispatcher


class Reconnect(Struct, frozen=True):
    """Replace the connection. What else has come in over the old one is void."""

    url: str | None = None  # None: to where it was


class Accept(Struct, frozen=True):
    tasks: m.Tasks


class StopAttempts(Struct, frozen=True):
    items: tuple[Held, ...]


class Drain(Struct, frozen=True):
    """The dispatcher wants us to leave."""


class Fence(Struct, frozen=True):
    """Have the slots stopped when this process shows no life for so long, or at `until`, whichever comes first."""

    seconds: float
    until: float


class Leave(Struct, frozen=True):
    """Give up, for this reason."""

    reason: str


class Note(Struct, frozen=True):
    """Something that the operator may want to read."""

    text: str


Directive = Say | Reconnect | Accept | StopAttempts | Drain | Fence | Leave | Note
