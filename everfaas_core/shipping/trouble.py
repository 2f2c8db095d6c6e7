"""What goes wrong with code that travels."""

from __future__ import annotations

from everfaas_core.model.errors import EverfaasError


class NotShippable(EverfaasError):
    """A function or an argument does not travel. Raised before anything is sent; says what, where it hangs, and what to
    do instead."""

    code = "not_shippable"


class ResultUnreadable(EverfaasError):
    """A result came back and can't be loaded here. The task itself has ended; its record says how."""

    code = "result_unreadable"


class ForeignCode(Exception):
    """Code of another minor version of Python that can't be built from source. `str()` says of which, and why."""
