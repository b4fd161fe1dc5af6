"""Packs the OpenAPI definitions of each Kubernetes version (from the kubernetes-validate package) into one small file.

In: `kubernetes_validate/kubernetes-json-schema/vX.Y.0-local/_definitions.json`.  Out: `OUT/vX.Y.json.xz`, a JSON object
of definitions by name, with the `null` alternatives that JSON-schema validators need taken out again and `$ref` values
shortened to the definition's name.
"""

from __future__ import annotations

import importlib.util
import json
import lzma
import re
import sys
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
        out["$ref"] = ref.rsplit("/", 1)[1]
    return out


def _source() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pack_schemas: the package kubernetes-validate is not installed")
    return Path(next(iter(spec.submodule_search_locations)), "kubernetes-json-schema")


def pack(out: Path) -> None:
    """Write one packed file per version into `out`; files that exist already are kept."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(_source().iterdir()):
        match = re.fullmatch(r"v1\.(\d+)\.0-local", folder.name)
        if match is None or int(match.group(1)) < OLDEST_MINOR:
            continue
        target = out / f"v1.{match.group(1)}.json.xz"
        if target.exists():
            continue
        definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
        packed = lzma.compress(json.dumps(_clean(definitions), separators=(",", ":")).encode(), preset=6)
        partial = target.with_suffix(".partial")
        partial.write_bytes(packed)
        partial.replace(target)


if __name__ == "__main__":
    pack(Path(sys.argv[1] if len(sys.argv) > 1 else "src/navarch/api/_schemas"))
