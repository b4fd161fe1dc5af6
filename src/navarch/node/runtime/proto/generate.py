"""Regenerate the protobuf modules beside this file: `python -m navarch.node.runtime.proto.generate` (needs
grpcio-tools)."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path

# The generator pins its own version in a check at import. What is generated here uses nothing newer than protobuf 5,
# so the check goes, and with it the need to regenerate for every release of protobuf.
_VERSION_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version as _runtime_version\n"
    r"|^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n",
    re.MULTILINE | re.DOTALL,
)


def main() -> int:
    """Run protoc on every `.proto` here, in place; returns its exit code."""
    from grpc_tools import protoc

    here = Path(__file__).resolve().parent
    source = here.parents[3]
    well_known = files("grpc_tools") / "_proto"
    protos = sorted(str(path) for path in here.glob("*.proto"))
    code = int(protoc.main(["protoc", f"-I{source}", f"-I{well_known}", f"--python_out={source}", *protos]))
    for path in here.glob("*_pb2.py"):
        path.write_text(_VERSION_CHECK.sub("", path.read_text()))
    return code


if __name__ == "__main__":
    sys.exit(main())
