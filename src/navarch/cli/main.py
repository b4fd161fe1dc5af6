"""The command `navarch`: a cluster on this machine, and what people do with it.

Conventions: progress and messages go to stderr, data to stdout; `-o json` where there is data; a setting comes from its
flag, else its `NAVARCH_*` variable, else the `--config` file, else the default. Commands are loaded when they are used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

_COMMANDS = {
    "up": ("navarch.cli.up", "up", "Create or start a cluster."),
    "down": ("navarch.cli.down", "down", "Stop a cluster; with --purge delete it."),
    "status": ("navarch.cli.status", "status", "Show a cluster's processes and health."),
    "ls": ("navarch.cli.status", "ls", "List the clusters of this machine."),
    "logs": ("navarch.cli.logs", "logs", "Show the logs of a cluster's processes."),
    "kubectl": ("navarch.cli.kubectl", "kubectl", "Run kubectl against a cluster."),
    "image": ("navarch.cli.image", "image", "Load and list container images."),
    "token": ("navarch.cli.token", "token", "Create tokens for clients."),
    "version": ("navarch.cli.version", "version", "Show versions."),
}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is run, so that each starts without the weight of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], list(_COMMANDS), n=1)
            if close:
                raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from error
            raise


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "NAVARCH"},
    epilog="Start here:  navarch up --detach  and then  navarch kubectl get nodes",
)
@click.version_option(package_name="navarch", message="navarch %(version)s")
def cli() -> None:
    """Kubernetes in Python: run a cluster on this machine."""


def main() -> Any:
    """Entry point; every expected failure is one line on stderr and a non-zero exit status."""
    from navarch.cluster.config import ConfigError

    try:
        if sys.argv[1:2] == ["kubectl"]:
            # Past click, which would take `--` for its own.
            from navarch.cli.kubectl import run_kubectl

            run_kubectl(sys.argv[2:])
        return cli.main(prog_name="navarch")
    except ConfigError as error:
        click.echo(f"navarch: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
