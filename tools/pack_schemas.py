"""Packs the OpenAPI definitions of each Kubernetes version (from the kubernetes-validate package) into two small files.

In: `kubernetes_validate/kubernetes-json-schema/vX.Y.0-local/_definitions.json`, of the installed package or of its
wheel.  Out, per version:

- `OUT/vX.Y.structure`: what every request needs, definitions without descriptions, deflated JSON, decoded at start-up;
- `OUT/vX.Y.json.xz`: the same definitions with their descriptions, read only when an OpenAPI document is asked for.

The `null` alternatives that JSON-schema validators need are taken out again, `$ref` values shortened to the
definition's name, and the constant `enum` of `apiVersion` and `kind` dropped.

A file `packed` remembers which package and which version of this script the others came from; while it is true nothing
is done.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import lzma
import re
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import Any

OLDEST_MINOR = 30
ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "src" / "navarch" / "api" / "_schemas"


def _clean(node: Any) -> Any:
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _clean(value) for key, value in node.items()}
    kinds = out.get("type")
    if isinstance(kinds, list):
        out["type"] = next(kind for kind in kinds if kind != "null")
    ref = out.get("$ref")
    if isinstance(ref, str):
        out["$ref"] = ref.rsplit("/", 1)[-1]
    properties = out.get("properties")
    if isinstance(properties, dict):
        for name in ("apiVersion", "kind"):
            if isinstance(properties.get(name), dict):
                properties[name].pop("enum", None)
    return out


def _without_descriptions(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_descriptions(item) for item in node]
    if not isinstance(node, dict):
        return node
    # A property may itself be called "description"; only the text of a schema is dropped.
    return {
        key: _without_descriptions(value)
        for key, value in node.items()
        if not (key == "description" and isinstance(value, str))
    }


def _origin() -> str:
    """What the packed files depend on: the package as pyproject.toml asks for it, and this script."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    package = next(line for line in requires if line.startswith("kubernetes-validate"))
    return f"{package} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}\n"


def is_packed(out: Path) -> bool:
    stamp = out / "packed"
    return stamp.exists() and stamp.read_text() == _origin()


def _source(wheel: Path | None) -> Path | zipfile.Path:
    if wheel is not None:
        return zipfile.Path(wheel, "kubernetes_validate/kubernetes-json-schema/")
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pack_schemas: the package kubernetes-validate is not installed")
    return Path(next(iter(spec.submodule_search_locations)), "kubernetes-json-schema")


def _write(target: Path, data: bytes) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(data)
    partial.replace(target)


def _encode(definitions: Any) -> bytes:
    return json.dumps(definitions, separators=(",", ":")).encode()


def pack(out: Path, wheel: Path | None = None) -> None:
    """Write the packed files of every version into `out`, unless they are there."""
    if is_packed(out):
        return
    out.mkdir(parents=True, exist_ok=True)
    folders: list[Any] = list(_source(wheel).iterdir())
    for folder in sorted(folders, key=lambda found: str(found.name)):
        match = re.fullmatch(r"v1\.(\d+)\.0-local", folder.name)
        if match is None or int(match.group(1)) < OLDEST_MINOR:
            continue
        definitions = _clean(json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["$defs"])
        name = f"v1.{match.group(1)}"
        _write(out / f"{name}.json.xz", lzma.compress(_encode(definitions), preset=6))
        _write(out / f"{name}.structure", zlib.compress(_encode(_without_descriptions(definitions)), 9))
    _write(out / "packed", _origin().encode())


def main() -> int:
    parser = argparse.ArgumentParser(description="Packs Kubernetes' OpenAPI definitions.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--wheel", type=Path, help="read this wheel instead of the installed package")
    parser.add_argument("--check", action="store_true", help="only say, by the exit code, whether all is packed")
    arguments = parser.parse_args()
    if arguments.check:
        return 0 if is_packed(arguments.out) else 1
    pack(arguments.out, arguments.wheel)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
