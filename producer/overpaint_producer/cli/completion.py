"""`overpaint completion`: the script by which a shell completes this command line."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script by which SHELL completes commands, options, their values, files and the fleet's models.

    \b
    bash, 4.4 or newer: in ~/.bashrc
      source <(overpaint completion bash)
    zsh: in ~/.zshrc, below compinit
      source <(overpaint completion zsh)
    fish: once
      overpaint completion fish >~/.config/fish/completions/overpaint.fish

    Models are asked of Redis, briefly: where it does not answer at once, there are none to choose from.

    \b
    Example:
      source <(overpaint completion bash)
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # SHELLS are those that click has.
    script = kind(context.find_root().command, {}, "overpaint", "_OVERPAINT_COMPLETE").source()
    # Click's script for fish takes a value only as far as its first comma.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'))
