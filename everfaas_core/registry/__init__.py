"""Plugins: what is installed (metadata alone), what was selected (imported), and whether it fits its port."""

from everfaas_core.registry.catalog import KINDS, Catalog, Plugin
from everfaas_core.registry.fit import check_fit
from everfaas_core.registry.registry import Offer, Registry, split_selection

__all__ = ["KINDS", "Catalog", "Offer", "Plugin", "Registry", "check_fit", "split_selection"]
