"""Configuration: defaults < file < environment < flags → one frozen Settings that knows where each value came from."""

from everfaas_core.config.keys import KEYS, Key
from everfaas_core.config.layers import load_settings, load_url, settings_environ
from everfaas_core.config.loopback import is_loopback, require_loopback
from everfaas_core.config.options import plugin_options
from everfaas_core.config.settings import PluginValues, Settings

__all__ = [
    "KEYS",
    "Key",
    "PluginValues",
    "Settings",
    "is_loopback",
    "load_settings",
    "load_url",
    "plugin_options",
    "require_loopback",
    "settings_environ",
]
