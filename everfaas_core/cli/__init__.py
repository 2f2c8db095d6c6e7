"""The command `everfaas`: one module per subcommand, imported only when it runs.

Exit statuses: 0 done · 1 failed while running (the store was refused, a role kept dying) · 2 a setting, a plugin or
the command line is wrong · 3 from a child to its supervisor only: the store was refused, another try would not help ·
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from everfaas_core.registry import Registry

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_INTERRUPTED: Final = 130


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
    from everfaas_core.model.errors import ConfigError, EverfaasError, PluginError

    if not isinstance(error, EverfaasError):
        raise error
    sys.stderr.write(f"Error: {error.message}\n" + (f"Hint: {error.hint}\n" if error.hint else ""))
    return EXIT_USAGE if isinstance(error, (ConfigError, PluginError)) else EXIT_FAILED
