"""Charts with helm itself: installed, upgraded, rolled back, tested and taken away, with hooks at every step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, KubectlError

HOOKS = ("pre-install", "post-install", "pre-upgrade", "post-upgrade", "pre-rollback", "post-rollback", "pre-delete")
CHART = "apiVersion: v2\nname: web\nversion: 0.1.0\nappVersion: '1'\nkubeVersion: '>=1.30.0-0'\n"
VALUES = "replicas: 1\nimage: nginx\nbroken: false\n"
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.charts.example.com}
spec:
  group: charts.example.com
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
OBJECTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: {{ .Release.Name }}}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}}
{{- $old := lookup "v1" "Secret" .Release.Namespace .Release.Name }}
stringData: {seen: {{ empty $old | not | quote }}}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
    spec:
      serviceAccountName: {{ .Release.Name }}
      containers: [{name: web, image: {{ .Values.image }}, ports: [{name: http, containerPort: 80}]}]
---
{{- if .Capabilities.APIVersions.Has "charts.example.com/v1/Thing" }}
apiVersion: charts.example.com/v1
kind: Thing
metadata: {name: {{ .Release.Name }}}
spec: {replicas: {{ .Values.replicas }}}
{{- end }}
---
{{- if .Values.broken }}
apiVersion: batch/v1
kind: Job
metadata: {name: {{ .Release.Name }}-check, annotations: {helm.sh/hook: post-upgrade}}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {sim.navarch.dev/run-duration: 100ms, sim.navarch.dev/exit-code: "1"}}
    spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}
{{- end }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations: {helm.sh/hook: test, sim.navarch.dev/run-duration: 100ms, sim.navarch.dev/logs: all is well}
spec: {restartPolicy: Never, containers: [{name: test, image: busybox}]}
"""
HOOK = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-HOOK
  annotations: {helm.sh/hook: HOOK, helm.sh/hook-weight: "2", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  template:
    metadata: {annotations: {sim.navarch.dev/run-duration: 100ms}}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ .Release.Name }}-hook
      containers: [{name: c, image: busybox}]
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .Release.Name }}-hook
  annotations:
    helm.sh/hook: HOOK
    helm.sh/hook-weight: "-5"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
"""


def find_helm() -> str | None:
    beside = Path(sys.executable).with_name("helm")
    return str(beside) if beside.exists() else shutil.which("helm")


class Helm:
    def __init__(self, cluster: Cluster, program: str, home: Path, namespace: str) -> None:
        self._start = [program, "--kubeconfig", str(cluster.config.admin_kubeconfig), "-n", namespace]
        self._env = {**cluster.env, "HELM_CACHE_HOME": str(home), "HELM_CONFIG_HOME": str(home)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._start, *words], env=self._env, capture_output=True, text=True, timeout=100, check=False
        )

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def helm(simulated: Cluster, namespace: str, tmp_path: Path) -> Helm:
    program = find_helm()
    if program is None:
        pytest.skip("there is no helm here")
    return Helm(simulated, program, tmp_path / "helm", namespace)


@pytest.fixture
def chart(simulated: Cluster, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    files = {"Chart.yaml": CHART, "values.yaml": VALUES, "crds/thing.yaml": DEFINITION}
    for name, text in {**files, "templates/objects.yaml": OBJECTS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    yield str(folder)
    # helm leaves what comes in `crds/`.
    simulated.try_kubectl("delete", "--ignore-not-found", "crd", "things.charts.example.com")


@pytest.fixture
def chart_with_hooks(chart: str) -> str:
    for hook in HOOKS:
        Path(chart, "templates", f"{hook}.yaml").write_text(HOOK.replace("HOOK", hook))
    return chart


def deployment(cluster: Cluster, namespace: str) -> Any:
    return cluster.get("deployment", "r", "-n", namespace)


def jobs(cluster: Cluster, namespace: str) -> set[str]:
    return {each["metadata"]["name"].removeprefix("r-") for each in cluster.get("jobs", "-n", namespace)["items"]}


def test_a_release_from_its_installation_to_its_end(
    simulated: Cluster, namespace: str, helm: Helm, chart_with_hooks: str
) -> None:
    chart = chart_with_hooks
    helm("install", "r", chart, "--wait", "--timeout", "60s")
    assert deployment(simulated, namespace)["status"]["readyReplicas"] == 1
    assert simulated.get("thing", "r", "-n", namespace)["spec"] == {"replicas": 1}
    assert jobs(simulated, namespace) == {"pre-install", "post-install"}

    helm("upgrade", "r", chart, "--set", "replicas=3", "--wait", "--timeout", "60s")
    assert deployment(simulated, namespace)["status"]["readyReplicas"] == 3
    # Templates see what there is.
    assert simulated.get("secret", "r", "-n", namespace)["data"]["seen"] == "dHJ1ZQ=="

    tested = helm("test", "r", "--logs")
    assert "Phase:          Succeeded" in tested
    assert "all is well" in tested

    helm("rollback", "r", "1", "--wait", "--timeout", "60s")
    assert deployment(simulated, namespace)["spec"]["replicas"] == 1
    assert {"pre-rollback", "post-rollback"} <= jobs(simulated, namespace)
    history = json.loads(helm("history", "r", "-o", "json"))
    assert [each["status"] for each in history] == ["superseded", "superseded", "deployed"]
    releases = simulated.get("secrets", "-n", namespace, "--field-selector", "type=helm.sh/release.v1")["items"]
    assert [each["metadata"]["labels"]["status"] for each in releases] == ["superseded", "superseded", "deployed"]

    helm("uninstall", "r", "--wait", "--timeout", "60s")
    assert "pre-delete" in jobs(simulated, namespace)
    for kind in ("deployment", "service", "secret", "thing"):
        with pytest.raises(KubectlError, match="NotFound"):
            simulated.get(kind, "r", "-n", namespace)


def test_an_upgrade_that_fails_is_rolled_back(simulated: Cluster, namespace: str, helm: Helm, chart: str) -> None:
    helm("install", "r", chart, "--wait", "--timeout", "60s")

    changed = ("--set", "broken=true", "--set", "replicas=2")
    done = helm.run("upgrade", "r", chart, *changed, "--rollback-on-failure", "--timeout", "60s")

    assert done.returncode == 1
    assert json.loads(helm("history", "r", "-o", "json"))[-1]["description"] == "Rollback to 1"
    assert deployment(simulated, namespace)["spec"]["replicas"] == 1


def test_a_release_changes_from_client_side_to_server_side(
    simulated: Cluster, namespace: str, helm: Helm, chart: str
) -> None:
    helm("install", "r", chart, "--server-side=false", "--wait", "--timeout", "60s")
    helm("upgrade", "r", chart, "--server-side=false", "--set", "image=nginx:2", "--wait", "--timeout", "60s")
    # Somebody else's field stays in a three-way merge.
    simulated.kubectl("annotate", "service", "r", "-n", namespace, "mine=1")

    helm("upgrade", "r", chart, "--server-side=true", "--set", "image=nginx:3", "--wait", "--timeout", "60s")

    (container,) = deployment(simulated, namespace)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "nginx:3"
    assert simulated.get("service", "r", "-n", namespace)["metadata"]["annotations"]["mine"] == "1"
    refused = helm.run("install", "other", chart, "--set", "replicas=many")
    assert "replicas" in refused.stderr
