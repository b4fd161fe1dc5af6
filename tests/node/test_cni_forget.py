"""Undoing what CNI made for pods that nobody ended in order: ours goes, what is another cluster's stays."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from navarch.node import cni


def result(folder: Path, network: str, container: str, space: Path, *, plugin: str = "bridge") -> Path:
    """What libcni writes down for a network of a container."""
    interface = "lo" if network == "cni-loopback" else "eth0"
    config = {"cniVersion": "0.4.0", "name": network, "plugins": [{"type": plugin}, {"type": "last"}]}
    made = {
        "kind": "cniCacheV1",
        "containerId": container,
        "config": base64.b64encode(json.dumps(config).encode()).decode(),
        "ifName": interface,
        "networkName": network,
        "cniArgs": [["K8S_POD_NAME", "web"]],
        "result": {"interfaces": [{"name": "veth1"}, {"name": interface, "sandbox": str(space)}]},
    }
    file = folder / f"{network}-{container}-{interface}"
    file.write_text(json.dumps(made))
    return file


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plugins that write down how they are called; the file."""
    place = tmp_path / "plugins"
    place.mkdir()
    log = tmp_path / "called"
    for name in ("bridge", "last", "host-local"):
        script = place / name
        script.write_text(f'#!/bin/sh\necho "$CNI_COMMAND {name} $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS" >> {log}\n')
        script.chmod(0o755)
    monkeypatch.setenv("CNI_BIN_DIR", str(place))
    return log


def test_what_is_ours_is_deleted_by_the_plugins_the_last_first(tmp_path: Path, called: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    spaces = tmp_path / "netns"
    spaces.mkdir()
    for name in ("cni-mine", "cni-other", "precious"):
        (spaces / name).touch()
    mine = result(results, "navarch-a_n", "c1", spaces / "cni-mine")
    loopback = result(results, "cni-loopback", "c1", spaces / "cni-mine")
    others = [
        result(results, "navarch-a_n-2", "c2", spaces / "cni-other"),
        result(results, "cni-loopback", "c2", spaces / "cni-other"),
    ]
    (results / "no-json").write_text("{")

    for _ in range(2):
        cni.forget("navarch-a_n", [], results=results)

    assert not mine.exists()
    assert not loopback.exists()
    assert all(other.exists() for other in others)
    assert sorted(os.listdir(spaces)) == ["cni-other", "precious"]
    lines = called.read_text().splitlines()
    assert lines[-2:] == ["DEL last c1 eth0 K8S_POD_NAME=web", "DEL bridge c1 eth0 K8S_POD_NAME=web"]
    assert not any("c2" in line for line in lines)


def test_what_has_its_namespace_in_our_folder_is_ours(tmp_path: Path, called: Path) -> None:
    results, folder = tmp_path / "results", tmp_path / "run"
    results.mkdir()
    folder.mkdir()
    mine = result(results, "cni-loopback", "c1", folder / "netns" / "cni-x")
    namesake = result(results, "cni-loopback", "c2", tmp_path / "run-of-another" / "cni-y")

    cni.forget("navarch-a_n", [folder], results=results)

    assert not mine.exists()
    assert namesake.exists()
