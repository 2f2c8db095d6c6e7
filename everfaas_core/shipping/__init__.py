"""Code that travels: functions, classes and the user's own modules by value, with their source for other Pythons.

`Shipper` packs on the client's side, `opening` opens in the slot, `answers` writes results there and `load_result`
reads them at the client. Formats and reasons: docs/shipping.md and docs/decisions/0013, 0014.
"""

from everfaas_core.shipping.answers import load_result
from everfaas_core.shipping.shipper import PackedFunction, Shipper
from everfaas_core.shipping.trouble import NotShippable, ResultUnreadable

__all__ = ["NotShippable", "PackedFunction", "ResultUnreadable", "Shipper", "load_result"]
