"""Runs the tests with every Python of this machine that Navarch supports, each in its own environment below `.venvs/`.

Arguments are pytest's.  Pythons are looked for on the PATH and where pyenv and uv keep theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def places() -> Iterator[Path]:
    yield from (Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry)
    home = Path.home()
    for kept in (Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions", home / ".local/share/uv/python"):
        yield from sorted((entry / "bin" for entry in kept.glob("*")), reverse=True)


def works(python: Path, version: str) -> bool:
    """A pyenv shim is there for every version and starts only those that are chosen."""
    script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def found() -> dict[str, Path]:
    candidates = list(dict.fromkeys(places()))
    out: dict[str, Path] = {}
    for version in VERSIONS:
        for folder in candidates:
            python = folder / f"python{version}"
            if python.exists() and works(python, version):
                out[version] = python
                break
    return out


def main() -> int:
    failed = []
    for version, python in found().items():
        print(f"Python {version}: {python}", flush=True)
        venv = ROOT / ".venvs" / version
        installed = subprocess.run([str(python), str(ROOT / "tools" / "install.py"), str(venv)], check=False)
        if installed.returncode == 0:
            tests = [str(venv / "bin" / "python"), "-m", "pytest", *sys.argv[1:]]
            if subprocess.run(tests, cwd=ROOT, check=False).returncode == 0:
                continue
        failed.append(version)
    if failed:
        print(f"Failed with Python {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
