"""What commands that call an API have in common: where it is, and in which form they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from everfaas_core.client.http import Api

F = TypeVar("F", bound=Callable[..., Any])

PAGE: Final = 500
"""Tasks or functions in one answer: as many as the API allows."""

IDS_MAX: Final = 10_000
"""Ids in one request that names many tasks."""


def url_options(function: F) -> F:
    """Give a command `--url` and `--config`; it takes them as `url` and `config`."""
    function = click.option("--config", metavar="FILE", help="Config file (TOML), for its key `url`.")(function)
    return click.option(
        "--url",
        metavar="URL",
        help="The API's address.  [default: EVERFAAS_URL, `url` in the config file, http://127.0.0.1:8000]",
    )(function)


def json_option(text: str) -> Callable[[F], F]:
    """Give a command `--json`, which it takes as `as_json`; `text` says what is printed."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def open_api(url: str | None, config: str | None) -> Api:
    """Return the API that flags, environment and config file name; nothing is sent yet. Raises ConfigError."""
    from everfaas_core.client.http import Api
    from everfaas_core.config.layers import load_url

    return Api(load_url(url, config)[0])


def task_ids(ctx: click.Context, parameter: click.Parameter, words: Any) -> Any:
    """Check ids of tasks as they were typed; a callback of click. Ids are whole: their beginnings are times."""
    from everfaas_core.model.ids import is_id

    for word in (words,) if isinstance(words, str) else words or ():
        if not is_id(word):
            raise click.BadParameter(
                f"{word!r} is no task's id: those have 36 characters. `everfaas ls` shows them.", ctx, parameter
            )
    return words


def complete_task_ids(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Offer the newest tasks to a shell that completes, with function and status beside each. Never raises."""
    from click.shell_completion import CompletionItem

    from everfaas_core.cli.shown import shown
    from everfaas_core.model.errors import EverfaasError

    try:
        with open_api(ctx.params.get("url"), ctx.params.get("config")) as api:
            tasks = api.get("/v1/tasks", {"limit": PAGE}, timeout_s=2.0)["tasks"]
    except (EverfaasError, KeyError, TypeError):
        return []
    return [
        CompletionItem(task["task_id"], help=f"{task['status']} {shown(task['function_name'], limit=60)}")
        for task in tasks
        if task["task_id"].startswith(incomplete.lower())
    ]
