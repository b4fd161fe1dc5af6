"""Admission as it is configured: plugins that run only where they are asked for, and PodSecurity's defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.apiserver.admission.chain import AdmissionConfig
from navarch.apiserver.admission.configuration import AdmissionConfigError, PodSecurityConfig, read
from navarch.apiserver.user import User
from navarch.kinds import resources as r

from .cluster import Cluster, pod, refusal, service


def enabled(*names: str) -> Cluster:
    return Cluster(config=AdmissionConfig(enabled=frozenset(names)))


async def test_always_pull_images_has_every_image_pulled() -> None:
    cluster = enabled("AlwaysPullImages")
    container = {"name": "c", "image": "busybox:1", "imagePullPolicy": "IfNotPresent"}

    made = await cluster.create(r.PODS, pod(containers=[container], initContainers=[{**container, "name": "i"}]))

    spec = made["spec"]
    assert [each["imagePullPolicy"] for each in (*spec["containers"], *spec["initContainers"])] == ["Always", "Always"]


async def test_extended_resources_bring_their_toleration() -> None:
    cluster = enabled("ExtendedResourceToleration")
    requests = {"cpu": "1", "example.com/gpu": "1"}
    container = {"name": "c", "image": "busybox:1", "resources": {"requests": requests, "limits": requests}}

    made = await cluster.create(r.PODS, pod(containers=[container]))

    tolerations = [each for each in made["spec"]["tolerations"] if each["effect"] == "NoSchedule"]
    assert tolerations == [{"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


async def test_external_addresses_are_refused() -> None:
    cluster = enabled("DenyServiceExternalIPs")

    error = await refusal(cluster.create(r.SERVICES, service(externalIPs=["192.0.2.1"])))

    assert error.message == 'services "web" is forbidden: Use of external IPs is denied by admission control.'


async def test_without_being_asked_for_they_do_nothing() -> None:
    cluster = Cluster()
    container = {"name": "c", "image": "busybox:1", "imagePullPolicy": "IfNotPresent"}

    made = await cluster.create(r.PODS, pod(containers=[container]))
    exposed = await cluster.create(r.SERVICES, service(externalIPs=["192.0.2.1"]))

    assert made["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert exposed["spec"]["externalIPs"] == ["192.0.2.1"]


# PodSecurity

HOSTILE = {"hostPID": True}


def restricted(**exemptions: frozenset[str]) -> Cluster:
    config = PodSecurityConfig({"enforce": ("baseline", "latest")}, **exemptions)
    return Cluster(config=AdmissionConfig(pod_security=config))


async def test_a_namespace_that_says_nothing_has_the_default_level() -> None:
    error = await refusal(restricted().create(r.PODS, pod(**HOSTILE)))

    assert 'violates PodSecurity "baseline:latest"' in error.message


async def test_a_namespace_that_says_something_has_that() -> None:
    cluster = await restricted().start()
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    await cluster.put(r.NAMESPACES, {"metadata": {"name": "default", "labels": labels}, "status": {"phase": "Active"}})

    made = await cluster.create(r.PODS, pod(**HOSTILE))

    assert made["spec"]["hostPID"]


@pytest.mark.parametrize(
    "exemptions", [{"namespaces": frozenset({"default"})}, {"users": frozenset({"system:apiserver", "jane"})}]
)
async def test_who_is_exempt_is_not_looked_at(exemptions: dict[str, frozenset[str]]) -> None:
    made = await restricted(**exemptions).create(r.PODS, pod(**HOSTILE), user=User("jane", ("system:masters",)))

    assert made["spec"]["hostPID"]


POD_SECURITY = """
apiVersion: pod-security.admission.config.k8s.io/v1
kind: PodSecurityConfiguration
defaults: {enforce: baseline, warn: restricted, warn-version: v1.30}
exemptions: {usernames: [jane], runtimeClasses: [vm], namespaces: [kube-system]}
"""


def _configuration(plugin: str) -> str:
    return (
        f"apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n{plugin}"
    )


def test_a_file_says_it_or_names_another_that_does(tmp_path: Path) -> None:
    inner = "".join(f"    {line}\n" for line in POD_SECURITY.strip().splitlines())
    (tmp_path / "whole.yaml").write_text(_configuration(f"  configuration:\n{inner}"))
    (tmp_path / "pods.yaml").write_text(POD_SECURITY)
    (tmp_path / "named.yaml").write_text(_configuration("  path: pods.yaml\n"))

    expected = PodSecurityConfig(
        {"enforce": ("baseline", "latest"), "warn": ("restricted", "v1.30")},
        frozenset({"jane"}),
        frozenset({"vm"}),
        frozenset({"kube-system"}),
    )
    assert read(tmp_path / "whole.yaml") == read(tmp_path / "named.yaml") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("enforce: baseline", "enforce: strict"), 'defaults.enforce: Invalid value: "strict"'),
        (("v1.30", "v2.0"), 'defaults.warn-version: Invalid value: "v2.0"'),
        (("kind: PodSecurityConfiguration", "kind: Other"), "no PodSecurityConfiguration"),
    ],
)
def test_files_that_cannot_be_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "pods.yaml").write_text(POD_SECURITY.replace(*change))
    (tmp_path / "named.yaml").write_text(_configuration("  path: pods.yaml\n"))

    with pytest.raises(AdmissionConfigError, match=message):
        read(tmp_path / "named.yaml")
