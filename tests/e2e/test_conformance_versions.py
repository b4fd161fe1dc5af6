"""An older Kubernetes version is served with its own kinds, fields and number, and kubectl works with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from navarch.cli.kubectl import find_kubectl
from navarch.testing.embedded import EmbeddedCluster

from .objects import deployment, service

_JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "job"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}},
}


class Kubectl:
    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self._kubeconfig, self._home = kubeconfig, home

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            find_kubectl(),
            "--kubeconfig",
            str(self._kubeconfig),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"HOME": str(self._home), "KUBECACHEDIR": str(self._home / "cache")},
        )
        said, _ = await process.communicate(stdin.encode())
        assert process.returncode == 0, said.decode()
        return said.decode()


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("1.37", "clustertrustbundles", "nonsense"),
        ("1.33", "servicecidrs", "clustertrustbundles"),
        ("1.30", "flowschemas", "servicecidrs"),
    ],
)
async def test_kubectl_works_with_a_version(version: str, has: str, lacks: str, tmp_path: Path) -> None:
    async with EmbeddedCluster(nodes=1, kubernetes_version=version, seed=1) as cluster:
        kubectl = Kubectl(await cluster.serve(), tmp_path)
        everything = json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [deployment("web"), service("web"), _JOB]}
        )

        assert f"Server Version: v{version}.0" in await kubectl("version")
        resources = await kubectl("api-resources")
        assert "deployments" in resources
        assert has in resources
        assert lacks not in resources

        assert "job.batch/job created" in await kubectl("apply", "-f", "-", stdin=everything)
        applied = await kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=everything)
        assert "Warning" not in applied
        await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        await kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=20s")
        assert "FIELDS" in await kubectl("explain", "deployment.spec")
        assert "10." in await kubectl("get", "services,endpoints,endpointslices")
        await kubectl("delete", "-f", "-", stdin=everything)
