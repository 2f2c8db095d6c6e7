"""`everfaas completion`: what makes a shell complete our commands, flags and ids of tasks."""

from __future__ import annotations

import click

HOW = {
    "bash": 'eval "$(everfaas completion bash)"                                   # in ~/.bashrc',
    "zsh": 'eval "$(everfaas completion zsh)"                                    # in ~/.zshrc, behind compinit',
    "fish": "everfaas completion fish > ~/.config/fish/completions/everfaas.fish",
}


@click.command("completion", epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(list(HOW)))
def command(shell: str) -> None:
    """Print the script that makes a shell complete commands, flags, choices, and ids of the newest tasks."""
    from click.shell_completion import get_completion_class

    from everfaas_core.cli.group import everfaas

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(everfaas, {}, "everfaas", "_EVERFAAS_COMPLETE").source())
