"""`python -m tests.docs.reference` writes docs/guides/reference.md: the command line's own help, as one page."""

from __future__ import annotations

import sys

import click
from click.testing import CliRunner

from navarch.cli.main import cli
from tests.docs.blocks import ROOT

TARGET = ROOT / "docs" / "guides" / "reference.md"
_INTRODUCTION = """\
# Reference of the command line

This page is what `--help` prints, command by command. It is generated (`python -m tests.docs.reference`), and a test
keeps it true.

A setting comes from its flag, else from its variable, else from the `--config` file, else it has its default.

| variable | flag |
| --- | --- |
"""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


def _variables() -> list[str]:
    rows: dict[str, str] = {}
    context = click.Context(cli)
    for path in ("up", "down"):
        command = cli.get_command(context, path)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter.envvar, str):
                rows[parameter.envvar] = max(parameter.opts, key=len)
    extra = {
        "NAVARCH_HOME": "where clusters live, without `--data-dir`",
        "NAVARCH_LOG_LEVEL": "how much processes log: `DEBUG`, `INFO`, `WARNING`",
        "NAVARCH_LOG_MAX_BYTES": "at which size a log is rotated; 10485760 if not set",
        "NAVARCH_ENVTEST_CONTROLLERS": "the controllers within the kube-apiserver of `navarch envtest`",
        "NAVARCH_LOG_FILES": "how many files are kept of each log; 5 if not set",
        "NO_COLOR": "no colours",
        "KUBECONFIG": "the file to merge into, as kubectl reads it",
    }
    return [f"| `{name}` | `{flag}` |" for name, flag in rows.items()] + [
        f"| `{name}` | {meaning} |" for name, meaning in extra.items()
    ]


def text() -> str:
    parts = [_INTRODUCTION + "\n".join(_variables()) + "\n"]
    for path in commands(cli):
        title = " ".join(("navarch", *path))
        if path == ("kubectl",):
            body = "Everything after it is kubectl's own; `--name NAME` may come first.\n"
        else:
            shown = CliRunner().invoke(cli, [*path, "--help"], prog_name="navarch", terminal_width=100)
            assert shown.exit_code == 0, shown.output
            body = f"```text\n{shown.output.rstrip()}\n```\n"
        parts.append(f"## {title}\n\n{body}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(TARGET.write_text(text()) < 0)
