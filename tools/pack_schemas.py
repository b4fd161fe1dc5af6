"""Packs the OpenAPI definitions of each Kubernetes version (from the kubernetes-validate package) into two small files.

In: `kubernetes_validate/kubernetes-json-schema/vX.Y.0-local/_definitions.json`.  Out, per version:

- `OUT/vX.Y.structure`: what every request needs, definitions without descriptions, deflated JSON, decoded at start-up;
- `OUT/vX.Y.json.xz`: the same definitions with their descriptions, read only when an OpenAPI document is asked for.

The `null` alternatives that JSON-schema validators need are taken out again, `$ref` values shortened to the
definition's name, and the constant `enum` of `apiVersion` and `kind` dropped.
"""

from __future__ import annotations

import importlib.util
import json
import lzma
import re
import sys
import zlib
from pathlib import Path
from typing import Any

OLDEST_MINOR = 30


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


def _source() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pack_schemas: the package kubernetes-validate is not installed")
    return Path(next(iter(spec.submodule_search_locations)), "kubernetes-json-schema")


def _write(target: Path, data: bytes) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(data)
    partial.replace(target)


def pack(out: Path) -> None:
    """Write the packed files of every version into `out`; versions whose files exist already are kept."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(_source().iterdir()):
        match = re.fullmatch(r"v1\.(\d+)\.0-local", folder.name)
        if match is None or int(match.group(1)) < OLDEST_MINOR:
            continue
        documented = out / f"v1.{match.group(1)}.json.xz"
        structure = out / f"v1.{match.group(1)}.structure"
        if documented.exists() and structure.exists():
            continue
        definitions = _clean(json.loads((folder / "_definitions.json").read_text())["$defs"])
        _write(documented, lzma.compress(_encode(definitions), preset=6))
        _write(structure, zlib.compress(_encode(_without_descriptions(definitions)), 9))


def _encode(definitions: Any) -> bytes:
    return json.dumps(definitions, separators=(",", ":")).encode()


if __name__ == "__main__":
    pack(Path(sys.argv[1] if len(sys.argv) > 1 else "src/navarch/api/_schemas"))
