"""`everfaas drain`: ask workers to finish what they run and leave."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Final

import click

from everfaas_core.model.errors import ConfigError, EverfaasError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
TIMEOUT_S: Final = 10.0


class Failed(EverfaasError):
    """The API said no, or nothing at all. The command exits with status 1."""

    code = "failed"


@click.command("drain")
@click.argument("workers", metavar="WORKER...", nargs=-1, required=True)
@click.option("--url", metavar="URL", help=f"The API's address.  [default: EVERFAAS_URL or {DEFAULT_URL}]")
def command(workers: tuple[str, ...], url: str | None) -> None:
    """Ask workers to finish what they run, take nothing more, and leave. Nothing is lost.

    `everfaas drain` returns when the API has taken note; each worker leaves within a second of its last task. The ids
    are those that GET /v1/workers lists. To restart a fleet without a gap: start the new workers, then drain the old.
    """
    base = (url or os.environ.get("EVERFAAS_URL") or DEFAULT_URL).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"'{base}' is not the API's address", hint=f"for example {DEFAULT_URL}")
    for worker in workers:
        _post(f"{base}/v1/workers/{urllib.parse.quote(worker, safe='')}/drain")
        click.echo(f"draining {worker}")


def _post(url: str) -> None:
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url, data=b"{}", headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - see above
            pass
    except urllib.error.HTTPError as error:
        body = json.loads(error.read() or b"{}").get("error", {})
        raise Failed(body.get("message", f"the API answered {error.code}"), hint=body.get("hint")) from error
    except OSError as error:
        raise Failed(
            f"no API answers at {url}: {error}", hint="start one with `everfaas up`, or name it: --url"
        ) from error
