"""EverythingFaaS: functions as a service for Python, on your own machines."""

from everfaas_core.version import __version__

__all__ = ["__version__"]
