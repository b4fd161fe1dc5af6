"""Build hook: packs the Kubernetes OpenAPI definitions into the compact files that navarch.api.schema reads."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemaBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Runs tools/pack_schemas.py before a wheel or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        script = Path(self.root, "tools", "pack_schemas.py")
        spec = importlib.util.spec_from_file_location("pack_schemas", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["pack_schemas"] = module
        spec.loader.exec_module(module)
        module.pack(Path(self.root, "src", "navarch", "api", "_schemas"))
