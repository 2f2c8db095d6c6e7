"""The HTTP API: `create_app` makes the Flask application, `ApiServer` serves it.

Public: create_app, ApiServer, ApiSettings. The API talks to nothing but a `ports.Store`, and never unpickles.
"""

from everfaas_core.api.app import create_app
from everfaas_core.api.server import ApiServer
from everfaas_core.api.settings import ApiSettings

__all__ = ["ApiServer", "ApiSettings", "create_app"]
