"""`navarch completion`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    \b
    Load it in the running shell:
      bash, zsh:  eval "$(navarch completion bash)"     (or zsh)
      fish:       navarch completion fish | source
    """
    from navarch.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    maker = found(cli, {}, "navarch", "_NAVARCH_COMPLETE")
    # Not through `source`, which in bash starts a shell to ask for its version.
    click.echo(maker.source_template % maker.source_vars())
