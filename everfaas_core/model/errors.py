"""Errors with a stable code, a sentence that says what happened, and a hint that says what to do next."""

from __future__ import annotations

from typing import ClassVar


class EverfaasError(Exception):
    """Base of all errors that a user can meet. `code` is stable; `hint` names the remedy."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(EverfaasError):
    """A setting is wrong: the operator's to mend. Commands exit with status 2."""

    code = "config"


class PluginError(EverfaasError):
    """A plugin is missing, broken, of the wrong API version, or clashes with another."""

    code = "plugin"


class InsecureError(ConfigError):
    """A listener would leave loopback without protection. Refused until it is set up or `--insecure` is given."""

    code = "insecure"


class StoreUnavailable(EverfaasError):
    """The store can't be reached, timed out, or can't accept writes now. Nothing is known to be lost; try again."""

    code = "store_unavailable"


class StoreRefused(EverfaasError):
    """The store was reached and is unfit (evicts, too old, needs a password). Trying again will not help."""

    code = "store_refused"


class UnknownFunction(EverfaasError):
    """A task names a function that is not registered."""

    code = "unknown_function"


class QueueFull(EverfaasError):
    """More tasks are queued than the limit allows. Try again later."""

    code = "queue_full"


class IdempotencyConflict(EverfaasError):
    """An idempotency key was used before, for another function or payload."""

    code = "idempotency_conflict"


class WireError(EverfaasError):
    """A frame is malformed or of another protocol version. The frame is counted and dropped."""

    code = "wire"


class PortInUse(ConfigError):
    """An address that should be listened on is taken."""

    code = "port_in_use"
