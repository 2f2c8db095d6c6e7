"""What `everfaas doctor` looks at in the system behind the API's address."""

from __future__ import annotations

import contextlib
import email.utils
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from everfaas_core.cli.doctor import FAIL, OK, WARN, Check
from everfaas_core.cli.shown import count_of, duration
from everfaas_core.model.errors import EverfaasError
from everfaas_core.version import __version__

if TYPE_CHECKING:
    from everfaas_core.client.http import Api
    from everfaas_core.config.settings import Settings

SKEW_S_MAX: Final = 3.0  # `Date` has whole seconds, and the answer takes its time


def api_checks(settings: Settings) -> Iterator[Check]:
    """Ask the API, and those behind it."""
    from everfaas_core.client.http import Api

    with Api(settings.url) as api:
        try:
            said = api.get("/")
        except EverfaasError as error:
            yield Check("API", FAIL, error.message, error.hint or "")
            return
        theirs = str(said.get("version")) if isinstance(said, Mapping) else "unknown"
        if theirs == __version__:
            yield Check("API", OK, f"answers at {api.url} ({settings.sources['url']}), version {theirs}")
        else:
            text = f"answers at {api.url}, version {theirs}; this is {__version__}"
            yield Check("API", WARN, text, "install the same version on both sides")
        yield _clock(api)
        yield from _system(api)


def _clock(api: Api) -> Check:
    began = time.time()
    with contextlib.suppress(EverfaasError, TypeError, ValueError):
        date = email.utils.parsedate_to_datetime(api.head("/healthz")["Date"])
        skew_s = date.timestamp() + 0.5 - (began + time.time()) / 2
        if abs(skew_s) > SKEW_S_MAX:
            how = "ahead of" if skew_s > 0 else "behind"
            text = (
                f"the API's clock is {duration(abs(skew_s))} {how} this one: ages that commands show are wrong by that"
            )
            return Check("clock", WARN, text, "synchronize both with NTP; no task depends on it")
        return Check("clock", OK, "the API's is this one's, as far as a second can tell")
    return Check("clock", WARN, "the API's answer has no date", "is there a proxy between that takes it away?")


def _system(api: Api) -> Iterator[Check]:
    from everfaas_core.client.errors import ApiRefused

    try:
        health = api.get("/readyz")
        yield Check("ready", OK, f"{health['queued']:,} tasks queued, {count_of(health['slots'], 'slot')}")
    except ApiRefused as error:
        yield Check("ready", FAIL, error.message.partition(": ")[2] or error.message, error.hint or "")
        health = error.details
    except EverfaasError as error:
        yield Check("ready", FAIL, error.message, error.hint or "")
        return
    yield from _store_kind(str(health.get("store", "")))
    try:
        workers = api.get("/v1/workers")["workers"]
    except EverfaasError as error:
        yield Check("workers", FAIL, error.message, error.hint or "")
        return
    yield from _workers(workers)


def _store_kind(kind: str) -> Iterator[Check]:
    if kind == "memory":
        text = "tasks and results are kept in the memory of one process, and are gone with it"
        yield Check("store", WARN, text, "without --store memory, `everfaas up` keeps them on disk")
    elif kind:
        yield Check("store", OK, kind)


def store_check(settings: Settings) -> Check:
    """Ask the store itself, with whatever the role that uses it would demand of it."""
    from everfaas_core.cli.screen import shown_url
    from everfaas_core.cli.selection import make_store, open_registry

    url = shown_url(settings.store)
    try:
        with contextlib.closing(make_store(open_registry(settings), settings)) as store:
            store.prepare()
            health = store.health()
    except EverfaasError as error:
        return Check("store", FAIL, f"{url}: {error.message}", error.hint or "")
    return Check("store", OK, f"{url}: {health.kind}, fit: version, eviction policy, scripts")


def _workers(workers: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Compare what runs the functions with what packs them."""
    import importlib.metadata

    if not workers:
        return
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = sorted({str(worker["python"]) for worker in workers if not str(worker["python"]).startswith(here + ".")})
    if others:
        text = f"workers run Python {', '.join(others)}; this is {here}"
        remedy = f"functions from here run there from their source, if they have one; else use {here} on both sides"
        yield Check("python", WARN, text, remedy)
    else:
        yield Check("python", OK, f"{here} here and on {count_of(len(workers), 'worker')}")
    mine = importlib.metadata.version("dill")
    others = sorted({str(worker["dill"]) for worker in workers if worker["dill"] != mine})
    if others:
        text = f"workers have dill {', '.join(others)}; this is {mine}"
        yield Check("dill", WARN, text, "install the same version on both sides: what one writes the other has to read")
    else:
        yield Check("dill", OK, f"{mine} here and there")
    draining = [str(worker["worker_id"]) for worker in workers if worker["draining"]]
    if draining:
        text = f"{count_of(len(draining), 'worker')} of {len(workers)} will leave: {', '.join(draining[:3])}"
        yield Check("workers", WARN, text, "start others if tasks are to go on")
