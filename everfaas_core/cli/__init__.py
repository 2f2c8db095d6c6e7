"""The command `everfaas`: one module per subcommand, imported only when it runs.

Exit statuses: 0 done · 1 failed while running (the API refused, the store was refused, a role kept dying, a check of
`doctor` failed) · 2 a setting, a plugin or the command line is wrong · 3 from a child to its supervisor only: the
store was refused, another try would not help · 4 no API answers · 5 a task has failed · 6 a task was cancelled · 7 a
task has not ended yet · 8 there is no such task, function or worker · 130 interrupted. docs/cli.md is the table for
those who write scripts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from everfaas_core.registry import Registry

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_UNREACHABLE: Final = 4
EXIT_TASK_FAILED: Final = 5
EXIT_TASK_CANCELLED: Final = 6
EXIT_NOT_ENDED: Final = 7
EXIT_UNKNOWN: Final = 8
EXIT_INTERRUPTED: Final = 130

_UNKNOWN: Final = ("unknown_task", "task_expired", "unknown_function", "unknown_worker", "task_vanished")


def main(
    arguments: Sequence[str] | None = None,
    *,
    command: str | None = None,
    program: str | None = None,
    registry: Registry | None = None,
) -> int:
    """Run the command line and return its exit status. Never raises, never shows a traceback for an operator's slip.

    `command` runs that subcommand directly under the name `program`, which is what `app.py` and its like do.
    `registry` is for a role that was forked: what its parent has found and loaded already.
    """
    try:
        import click

        from everfaas_core.cli.group import everfaas
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    try:
        chosen = everfaas.get_command(click.Context(everfaas), command) if command else everfaas
        assert chosen is not None
        words = list(sys.argv[1:] if arguments is None else arguments)
        status = chosen.main(words, prog_name=program or "everfaas", standalone_mode=False, obj=registry)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        sys.stdout = None  # so that nothing tries to flush it at exit
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - what is not an operator's slip is raised again
        return _report(error)
    return status if isinstance(status, int) else 0


def _report(error: Exception) -> int:
    from everfaas_core.model.errors import EverfaasError

    if not isinstance(error, EverfaasError):
        raise error
    show_error(error)
    return exit_status(error)


def show_error(error: Any) -> None:
    """Write what an EverfaasError says on stderr. What others wrote in it can do nothing to the terminal."""
    from everfaas_core.cli.shown import shown

    hint = f"Hint: {shown(error.hint)}\n" if error.hint else ""
    sys.stderr.write(f"Error: {shown(error.message, lines=True)}\n{hint}")


def exit_status(error: Exception) -> int:
    """Return the exit status that an error of ours stands for."""
    from everfaas_core.model.errors import ConfigError, PluginError

    if isinstance(error, (ConfigError, PluginError)):
        return EXIT_USAGE
    if getattr(error, "code", "") == "not_shippable":  # their own code, and theirs to mend
        return EXIT_USAGE
    reason = getattr(error, "reason", "") or getattr(error, "code", "")
    if reason == "api_unreachable":
        return EXIT_UNREACHABLE
    return EXIT_UNKNOWN if reason in _UNKNOWN else EXIT_FAILED
