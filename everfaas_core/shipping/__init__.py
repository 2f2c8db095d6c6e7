"""Code that travels: functions, classes and the user's own modules by value, with their source for other Pythons.

`Shipper` packs on the client's side, `opening` opens in the slot, `answers` writes results there and `load_result`
reads them at the client. Formats and reasons: docs/shipping.md and docs/decisions/0013, 0014.

Names are imported when they are first used: slots do not need what packs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from everfaas_core.shipping.answers import load_result
    from everfaas_core.shipping.shipper import PackedFunction, Shipper
    from everfaas_core.shipping.trouble import NotShippable, ResultUnreadable

__all__ = ["NotShippable", "PackedFunction", "ResultUnreadable", "Shipper", "load_result"]

_HOMES: Final = {
    "NotShippable": "trouble",
    "PackedFunction": "shipper",
    "ResultUnreadable": "trouble",
    "Shipper": "shipper",
    "load_result": "answers",
}


def __getattr__(name: str) -> Any:
    """Import a name; called by the interpreter when it is not there yet."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
