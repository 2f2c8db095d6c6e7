"""What a supervisor imports before it forks its roles, so that they share it (docs/decisions/0011-roles-are-forked.md).

Nothing here decides anything: what can't be imported or loaded is left to the role that needs it, which says so.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from everfaas_core.model.errors import EverfaasError
from everfaas_core.model.ids import DispatcherId
from everfaas_core.runtime.forking import can_fork, native_threads

if TYPE_CHECKING:
    from everfaas_core.cli.role import Role
    from everfaas_core.registry import Registry

DISPATCHER: Final = ("everfaas_core.cli.dispatcher", "everfaas_core.runtime.dispatcher")
SLOTS: Final = ("everfaas_core.worker.host",)  # of workers, and of a dispatcher that runs slots itself
WORKER: Final = ("everfaas_core.cli.worker", "everfaas_core.worker.agent")
API: Final = ("everfaas_core.cli.api",)
SEVERAL_APIS: Final = ("everfaas_core.api",)
"""The web's libraries. A single API process has them to itself, and imports them while the other roles start."""


def import_for(
    role: Role, modules: Sequence[str], *, store: str, answers: bool = False, with_mode: bool = False
) -> Registry | None:
    """Import these modules, and what the plugins of the store (and of the mode) import when they are used.

    `store` is the URL that children get; it is asked something if it surely `answers`. Returns what is loaded, for
    children that are forked from here on; None if this process had better not be forked: something started threads.
    """
    from everfaas_core.cli.selection import make_store

    if not can_fork():
        return None
    for name in modules:
        importlib.import_module(name)
    importlib.metadata.version("dill")  # whoever runs slots asks for it, and then imports a parser of e-mails
    # Plugins import their libraries when they make something for the first time, or connect.
    with (
        contextlib.suppress(EverfaasError),
        contextlib.closing(make_store(role.registry, msgspec.structs.replace(role.settings, store=store))) as made,
    ):
        if answers:
            made.health()
    if with_mode:
        from everfaas_core.cli.dispatcher import make_link

        with contextlib.suppress(EverfaasError):
            make_link(role, role.registry.mode(role.settings.mode), DispatcherId(""))
    return role.registry if can_fork() and native_threads() <= 1 else None
