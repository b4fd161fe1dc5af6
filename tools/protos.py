"""Makes the Python messages of every `.proto` file under src, beside it: `make protos` (needs grpcio-tools)."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"

# The generator pins its own version in a check at import. What is generated here uses nothing newer than protobuf 5,
# so the check goes, and with it the need to regenerate for every release of protobuf.
_VERSION_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version as _runtime_version\n"
    r"|^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n",
    re.MULTILINE | re.DOTALL,
)


def main() -> int:
    """Run protoc on every `.proto`, in place; returns its exit code."""
    from grpc_tools import protoc

    well_known = files("grpc_tools") / "_proto"
    protos = sorted(SOURCE.rglob("*.proto"))
    names = [str(path) for path in protos]
    code = int(protoc.main(["protoc", f"-I{SOURCE}", f"-I{well_known}", f"--python_out={SOURCE}", *names]))
    for path in protos:
        made = path.with_name(f"{path.stem}_pb2.py")
        made.write_text(_VERSION_CHECK.sub("", made.read_text()))
    return code


if __name__ == "__main__":
    sys.exit(main())
