"""The private Valkey server: a bundled binary, run by us in a data directory, for one machine."""

from everfaas_core.embedded.directory import default_data_dir
from everfaas_core.embedded.server import EmbeddedStore

__all__ = ["EmbeddedStore", "default_data_dir"]
