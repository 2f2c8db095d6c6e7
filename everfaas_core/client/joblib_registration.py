"""`register_joblib`: makes the fleet known to joblib, which need not be installed otherwise."""

from __future__ import annotations

import functools
from typing import Final, Unpack

from everfaas_core.client.client import Client
from everfaas_core.client.options import CallOptions, checked

BACKEND: Final = "everfaas"


def register_joblib(client: Client | None = None, **options: Unpack[CallOptions]) -> None:
    """Make the fleet known to joblib as the backend "everfaas".

        register_joblib()
        with joblib.parallel_config(backend="everfaas"):
            joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(9))

    It calls by `client`, or by the one of this process, of the API at EVERFAAS_URL. `options` are for all its calls;
    `parallel_config(backend="everfaas", timeout_s=60)` adds to them. Raises ImportError without joblib, TypeError for
    an option that does not exist.
    """
    known = checked(options)
    try:
        from everfaas_core.client.joblib_backend import FleetBackend, register_parallel_backend
    except ModuleNotFoundError as error:
        if error.name != "joblib":
            raise
        raise ImportError("joblib is not installed: pip install 'everfaas[joblib]'", name="joblib") from None
    register_parallel_backend(BACKEND, functools.partial(FleetBackend, client=client, **known))
