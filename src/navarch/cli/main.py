"""The command `navarch`: a cluster on this machine, and what people do with it.

Conventions: progress and messages go to stderr, data to stdout; `-o json` where there is data; a setting comes from its
flag, else its `NAVARCH_*` variable, else the `--config` file, else the default. Commands are loaded when they are used.
An expected failure is a line or two on stderr that say what to do next, and a non-zero exit status: 1 where something
did not work, 2 where the request was wrong, 130 after Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
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
    "snapshot": ("navarch.cli.snapshot", "snapshot", "Save a cluster's state, and put it back."),
    "agent": ("navarch.cli.agent", "agent", "Join a cluster elsewhere as a node."),
    "token": ("navarch.cli.token", "token", "Make tokens: for machines that join, and for clients."),
    "envtest": ("navarch.cli.envtest", "envtest", "Print a folder with kube-apiserver and etcd for test harnesses."),
    "completion": ("navarch.cli.completion", "completion", "Print a script that completes commands in your shell."),
    "version": ("navarch.cli.version", "version", "Show versions."),
}
# What the commands are called elsewhere, and verbs of kubectl that people type here.
_CALLED_HERE = {
    **dict.fromkeys(("start", "create", "install", "server", "run"), "up"),
    **dict.fromkeys(("stop", "halt"), "down"),
    **dict.fromkeys(("delete", "destroy", "uninstall", "rm"), "down --purge"),
    **dict.fromkeys(("list", "clusters", "ps"), "ls"),
    **dict.fromkeys(("join", "node"), "agent"),
    **dict.fromkeys(("load", "images", "import"), "image load"),
    **dict.fromkeys(("save", "backup"), "snapshot save"),
    "restore": "snapshot restore",
    **{
        verb: f"kubectl {verb}"
        for verb in (
            *("get", "apply", "describe", "exec", "edit", "patch", "scale", "rollout", "label", "annotate", "expose"),
            *("drain", "cordon", "uncordon", "taint", "top", "explain", "port-forward", "wait", "config", "auth"),
        )
    },
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

            close = _CALLED_HERE.get(args[0]) or next(iter(difflib.get_close_matches(args[0], _COMMANDS, n=1)), None)
            if close:
                raise click.UsageError(f"{error.message} Did you mean {close!r}?", ctx) from error
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`navarch help up` is `navarch up --help`."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "NAVARCH"},
    epilog="Start here:  navarch up --detach  and then  navarch kubectl get nodes",
)
@click.version_option(package_name="navarch", message="navarch %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Kubernetes in Python: run a cluster on this machine."""
    # https://no-color.org: any value but the empty one.
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> Any:
    """Entry point; what people can do something about ends in a message, not in a traceback."""
    try:
        if sys.argv[1:2] == ["kubectl"]:
            # Past click, which would take `--` for its own.
            from navarch.cli.kubectl import run_kubectl

            run_kubectl(sys.argv[2:])
        sys.exit(cli.main(prog_name="navarch", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; nothing may be written when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        _fail(str(error), _status_of(error))


def _status_of(error: Exception) -> int:
    """Which exit status an expected failure means; raises what was not expected."""
    # Not before there is an error: `--help` and `kubectl` need none of these.
    from navarch.cluster.config import ConfigError
    from navarch.cluster.kubeconfig import KubeconfigError
    from navarch.cluster.lifecycle import StartError

    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, (KubeconfigError, StartError)):
        return 1
    raise error


def _fail(message: str, status: int) -> None:
    click.echo(f"navarch: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
