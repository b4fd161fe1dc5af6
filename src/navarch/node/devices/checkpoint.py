"""What is remembered of devices across restarts of the kubelet, in one file that is replaced as a whole: which
container has which, what its plugin said that it needs, and which resources there were."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from navarch.node.devices.ledger import Share

NAME = "kubelet_internal_checkpoint"


def write(
    folder: Path, given: Mapping[Share, tuple[str, ...]], needs: Mapping[Share, bytes], resources: list[str]
) -> None:
    """Raises OSError."""
    entries = [
        {
            "PodUID": share.uid,
            "ContainerName": share.container,
            "ResourceName": share.resource,
            "DeviceIDs": {"-1": list(ids)},
            "AllocResp": base64.b64encode(needs.get(share, b"")).decode(),
        }
        for share, ids in given.items()
    ]
    data = {"PodDeviceEntries": entries, "RegisteredDevices": {name: [] for name in sorted(resources)}}
    text = json.dumps(data, sort_keys=True)
    partial = folder / f"{NAME}.partial"
    partial.write_text(json.dumps({"Data": data, "Checksum": zlib.crc32(text.encode())}))
    partial.replace(folder / NAME)


def read(folder: Path) -> tuple[dict[Share, tuple[str, ...]], dict[Share, bytes], list[str]]:
    """Nothing where there is no file, or a damaged one."""
    try:
        stored: Any = json.loads((folder / NAME).read_text())
        data = stored["Data"]
        if zlib.crc32(json.dumps(data, sort_keys=True).encode()) != stored["Checksum"]:
            return {}, {}, []
        given: dict[Share, tuple[str, ...]] = {}
        needs: dict[Share, bytes] = {}
        for entry in data["PodDeviceEntries"]:
            share = Share(entry["PodUID"], entry["ContainerName"], entry["ResourceName"])
            given[share] = tuple(one for ids in entry["DeviceIDs"].values() for one in ids)
            needs[share] = base64.b64decode(entry["AllocResp"])
        return given, needs, list(data["RegisteredDevices"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}, []
