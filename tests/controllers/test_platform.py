"""Namespaces, service accounts, nodes, budgets, quotas, volumes, roles, certificates: against a real API server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of
from navarch.client.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from navarch.controllers.base import ControllerConfig
from navarch.controllers.discovery import Discovery
from navarch.controllers.garbage import GarbageCollector
from navarch.controllers.nodes.ipam import CidrSet
from tests.clocks import SteppedClock
from tests.controllers.conftest import KEEP, Cluster, node, running
from tests.controllers.objects import deployment


def named(api_version: str, kind: str, name: str, namespace: str = "", **rest: Any) -> Obj:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


async def test_a_namespace_gets_its_account_and_goes_with_all_it_has(cluster: Cluster) -> None:
    await cluster.create(NAMESPACES, named("v1", "Namespace", "team"))

    async def ready() -> bool:
        return any(name_of(a) == "default" for a in await cluster.list(SERVICE_ACCOUNTS, "team"))

    await cluster.until(ready)
    made = deployment("web", replicas=2)
    made["metadata"]["namespace"] = "team"
    await cluster.create(DEPLOYMENTS, made)

    async def running_pods() -> bool:
        return len(await cluster.list(PODS, "team")) == 2

    await cluster.until(running_pods)
    await cluster.client.delete(NAMESPACES, "team")

    async def gone() -> bool:
        return await cluster.client.find(NAMESPACES, "team") is None

    await cluster.until(gone)


async def conditions_of(cluster: Cluster, namespace: str) -> dict[str, tuple[str, str, str]]:
    found = await cluster.client.find(NAMESPACES, namespace)
    listed = ((found or {}).get("status") or {}).get("conditions") or ()
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in listed}


async def test_a_namespace_says_what_keeps_it(cluster: Cluster) -> None:
    await cluster.create(NAMESPACES, named("v1", "Namespace", "team"))
    held = named("v1", "ConfigMap", "held", "team")
    held["metadata"]["finalizers"] = ["example.com/held"]
    await cluster.create(CONFIG_MAPS, held)
    kept = named("v1", "Service", "kept", "team", spec={"ports": [{"port": 80}]})
    kept["metadata"]["annotations"] = {KEEP: ""}
    await cluster.create(SERVICES, kept)

    await cluster.client.delete(NAMESPACES, "team")

    async def told() -> dict[str, tuple[str, str, str]] | None:
        found = await conditions_of(cluster, "team")
        return found if found.get("NamespaceContentRemaining", ("",))[0] == "True" else None

    conditions = await cluster.until(told)
    assert list(conditions) == [
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure",
        "NamespaceContentRemaining",
        "NamespaceFinalizersRemaining",
    ]
    all_found = ("False", "ResourcesDiscovered", "All resources successfully discovered")
    assert conditions["NamespaceDeletionDiscoveryFailure"] == all_found
    failed = 'Failed to delete all resource types, 1 remaining: services "kept" is forbidden: it is to be kept'
    assert conditions["NamespaceDeletionContentFailure"] == ("True", "ContentDeletionFailed", failed)
    remaining = "Some resources are remaining: configmaps. has 1 resource instances"
    assert conditions["NamespaceContentRemaining"] == ("True", "SomeResourcesRemain", remaining)
    remaining = "Some content in the namespace has finalizers remaining: example.com/held in 1 resource instances"
    assert conditions["NamespaceFinalizersRemaining"] == ("True", "SomeFinalizersRemain", remaining)


async def test_a_group_that_does_not_answer_keeps_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"metrics.example.com/v1": "stale GroupVersion discovery: metrics.example.com/v1"}
    answering = asyncio.Event()
    monkeypatch.setattr(Discovery, "failed", lambda _self: {} if answering.is_set() else away)
    async with running() as cluster:
        await cluster.create(NAMESPACES, named("v1", "Namespace", "team"))
        await cluster.client.delete(NAMESPACES, "team")

        async def told() -> tuple[str, str, str] | None:
            found = (await conditions_of(cluster, "team")).get("NamespaceDeletionDiscoveryFailure")
            return found if found is not None and found[0] == "True" else None

        message = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
        message += "metrics.example.com/v1: stale GroupVersion discovery: metrics.example.com/v1"
        assert await cluster.until(told) == ("True", "DiscoveryFailed", message)

        answering.set()

        async def gone() -> bool:
            return await cluster.client.find(NAMESPACES, "team") is None

        await cluster.until(gone)


async def test_the_old_labels_of_a_node_follow_the_new_ones(cluster: Cluster) -> None:
    made = node("n2")
    made["metadata"]["labels"] |= {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    await cluster.create(NODES, made)

    async def until_labelled(**wanted: str) -> None:
        async def labelled() -> bool:
            labels = (await cluster.get(NODES, "n2"))["metadata"]["labels"]
            return {name: labels.get(f"beta.kubernetes.io/{name}") for name in ("os", "arch")} == wanted

        await cluster.until(labelled)

    await until_labelled(os="linux", arch="arm64")
    await cluster.patch(NODES, "n2", {"metadata": {"labels": {"beta.kubernetes.io/arch": "amd64"}}})
    await until_labelled(os="linux", arch="arm64")


async def test_the_root_ca_and_token_secrets_are_filled() -> None:
    config = ControllerConfig(root_ca="PEM", token_issuer=lambda account, secret: f"token-of-{name_of(account)}")
    async with running(config) as cluster:
        found = await cluster.until(lambda: cluster.client.find(CONFIG_MAPS, "kube-root-ca.crt", "default"))
        assert found["data"] == {"ca.crt": "PEM"}
        await cluster.until(lambda: cluster.client.find(SERVICE_ACCOUNTS, "default", "default"))
        secret = named("v1", "Secret", "tok", "default", type="kubernetes.io/service-account-token")
        secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
        await cluster.create(SECRETS, secret)

        async def filled() -> Any:
            return (await cluster.get(SECRETS, "tok")).get("data") or None

        data = await cluster.until(filled)
        assert base64.b64decode(data["token"]) == b"token-of-default"


async def test_tokens_of_accounts_that_nobody_uses_lose_their_force_and_go_a_year_later() -> None:
    clock = SteppedClock()
    async with running(clock=clock) as cluster:
        await cluster.until(lambda: cluster.client.find(SERVICE_ACCOUNTS, "default", "default"))
        await cluster.create(NAMESPACES, named("v1", "Namespace", "kube-system"))
        tracking = "kube-apiserver-legacy-service-account-token-tracking"
        await cluster.create(
            CONFIG_MAPS, named("v1", "ConfigMap", tracking, "kube-system", data={"since": "2020-01-01"})
        )
        for name in ("unused", "used", "mounted", "by-hand"):
            secret = named("v1", "Secret", name, "default", type="kubernetes.io/service-account-token")
            secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
            await cluster.create(SECRETS, secret)
        listed = [{"name": name} for name in ("unused", "used", "mounted")]
        await cluster.client.patch(SERVICE_ACCOUNTS, "default", "default", {"secrets": listed})
        pod = named("v1", "Pod", "p", "default", spec={"containers": [{"name": "c", "image": "i"}]})
        pod["spec"]["volumes"] = [{"name": "t", "secret": {"secretName": "mounted"}}]
        await cluster.create(PODS, pod)

        async def touch(name: str, **labels: str | None) -> None:
            await cluster.client.patch(SECRETS, name, "default", {"metadata": {"labels": labels}})

        async def labels(name: str) -> dict[str, str]:
            return dict((await cluster.get(SECRETS, name))["metadata"].get("labels") or {})

        invalid = "kubernetes.io/legacy-token-invalid-since"
        clock.ahead = timedelta(days=400)
        await touch("used", **{"kubernetes.io/legacy-token-last-used": f"{clock.now():%Y-%m-%d}"})
        for name in ("mounted", "by-hand", "unused"):
            await touch(name, looked="at")

        async def invalidated() -> bool:
            return invalid in await labels("unused")

        await cluster.until(invalidated)
        assert (await labels("unused"))[invalid] == f"{clock.now():%Y-%m-%d}"

        clock.ahead = timedelta(days=800)
        await touch("used", **{"kubernetes.io/legacy-token-last-used": f"{clock.now():%Y-%m-%d}"})
        for name in ("mounted", "by-hand"):
            await touch(name, looked="again")
        # It may have been looked at since the clock was put forward.
        with contextlib.suppress(StatusError):
            await touch("unused", looked="again")

        async def gone() -> bool:
            return await cluster.client.find(SECRETS, "unused", "default") is None

        await cluster.until(gone)
        for name in ("used", "mounted", "by-hand"):
            assert invalid not in await labels(name)


async def test_nodes_get_a_range_of_their_own(cluster: Cluster) -> None:
    for number in range(3):
        await cluster.create(NODES, node(f"extra{number}"))

    async def all_have() -> Any:
        cidrs = {n["spec"].get("podCIDR") for n in await cluster.list(NODES)}
        return cidrs if None not in cidrs and len(cidrs) == 4 else None

    assert all(cidr.endswith("/24") for cidr in await cluster.until(all_have))


async def test_nodes_get_a_range_of_each_ip_family_or_none() -> None:
    config = ControllerConfig(cluster_cidr="fd00:42::/63,10.42.0.0/22", node_cidr_mask_ipv6=64)
    async with running(config, kubelet=False) as cluster:
        for name in ("other", "third"):
            await cluster.create(NODES, node(name))

        async def given() -> Any:
            found = [n["spec"]["podCIDRs"] for n in await cluster.list(NODES) if n["spec"].get("podCIDRs")]
            return sorted(found) if len(found) == 2 else None

        found = await cluster.until(given)
        assert [cidrs[0] for cidrs in found] == ["fd00:42:0:1::/64", "fd00:42::/64"]
        assert len({cidrs[1] for cidrs in found}) == 2
        assert all(cidrs[1].endswith(".0/24") for cidrs in found)
        # The third has none, as there is no IPv6 range left; it gets what another leaves.
        names = [n["metadata"]["name"] for n in await cluster.list(NODES) if n["spec"].get("podCIDRs")]
        await cluster.client.delete(NODES, names[0], "")

        async def given_again() -> Any:
            return len([n for n in await cluster.list(NODES) if len(n["spec"].get("podCIDRs") or ()) == 2]) == 2

        assert await cluster.until(given_again)


def test_ranges_are_given_once_and_come_back() -> None:
    cidrs = CidrSet("10.42.0.0/22", 24)
    taken = [cidrs.take() for _ in range(4)]

    assert sorted(filter(None, taken)) == ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24"]
    assert cidrs.take() is None
    cidrs.release("10.42.2.0/24")
    assert cidrs.take() == "10.42.2.0/24"


def test_a_range_that_could_not_be_written_is_given_next() -> None:
    cidrs = CidrSet("10.42.0.0/22", 24)
    cidrs.give_back(cidrs.take() or "")

    assert cidrs.take() == "10.42.0.0/24"


async def test_a_silent_node_is_tainted_and_its_pods_leave() -> None:
    clock = SteppedClock()
    config = ControllerConfig(node_monitor_period_s=0.1)
    async with running(config, clock=clock) as cluster:
        await cluster.create(DEPLOYMENTS, deployment("web", replicas=2))
        await cluster.until_status(DEPLOYMENTS, "web", availableReplicas=2)
        await cluster.create(NODES, node("n2"))
        await asyncio.sleep(0.3)
        clock.ahead = timedelta(seconds=60)

        async def refresh() -> bool:
            """n2 speaks, n1 does not."""
            fresh = node("n2")["status"]
            fresh["conditions"][0]["lastHeartbeatTime"] = (clock.now()).strftime("%Y-%m-%dT%H:%M:%SZ")
            await cluster.client.patch(NODES, "n2", "", {"status": fresh}, subresource="status")
            found = await cluster.get(NODES, "n1")
            effects = {(t["key"], t["effect"]) for t in found["spec"].get("taints", ())}
            key = "node.kubernetes.io/unreachable"
            return {(key, "NoSchedule"), (key, "NoExecute")} <= effects

        await cluster.until(refresh, timeout_s=15)
        found = await cluster.get(NODES, "n1")
        ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
        events = await cluster.until(lambda: cluster.events("n1"))
        assert any(reason == "NodeNotReady" for reason, _ in events)


async def test_a_budget_says_how_many_may_go(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=4))
    spec = {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "web"}}}
    await cluster.create(POD_DISRUPTION_BUDGETS, named("policy/v1", "PodDisruptionBudget", "web", "default", spec=spec))

    await cluster.until_status(
        POD_DISRUPTION_BUDGETS, "web", expectedPods=4, currentHealthy=4, desiredHealthy=3, disruptionsAllowed=1
    )


async def test_pods_that_nobody_manages_are_told_of_by_the_budget(cluster: Cluster) -> None:
    await cluster.create(PODS, bare_pod("alone"))
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "bare"}}}
    await cluster.create(POD_DISRUPTION_BUDGETS, named("policy/v1", "PodDisruptionBudget", "all", "default", spec=spec))

    async def told() -> list[str]:
        return [message for reason, message in await cluster.events("all") if reason == "UnmanagedPods"]

    [message] = await cluster.until(told)
    selector = (
        "&LabelSelector{MatchLabels:map[string]string{app: bare,},MatchExpressions:[]LabelSelectorRequirement{},}"
    )
    assert message.startswith(f"Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be ")


async def test_where_a_pods_manager_is_not_there_nothing_may_be_disrupted() -> None:
    async with running(ControllerConfig(disabled=frozenset({GarbageCollector.name}))) as cluster:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "gone", "uid": "1", "controller": True}
        await cluster.create(PODS, bare_pod("lost", ownerReferences=[owner]))
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "bare"}}}
        budget = named("policy/v1", "PodDisruptionBudget", "all", "default", spec=spec)
        await cluster.create(POD_DISRUPTION_BUDGETS, budget)

        async def failed() -> list[Obj]:
            status = (await cluster.get(POD_DISRUPTION_BUDGETS, "all")).get("status") or {}
            return [each for each in status.get("conditions") or () if each["reason"] == "SyncFailed"]

        [condition] = await cluster.until(failed)
        assert (condition["status"], condition["message"]) == ("False", 'found no controllers for pod "lost"')


def bare_pod(name: str, **metadata: Any) -> Obj:
    pod = named("v1", "Pod", name, "default", spec={"containers": [{"name": "main", "image": "bare:1"}]})
    return {**pod, "metadata": {**pod["metadata"], "labels": {"app": "bare"}, **metadata}}


async def test_a_quota_counts_what_is_there_and_what_goes(cluster: Cluster) -> None:
    spec = {"hard": {"pods": "10", "count/deployments.apps": "5", "configmaps": "20"}}
    await cluster.create(RESOURCE_QUOTAS, named("v1", "ResourceQuota", "limits", "default", spec=spec))
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3))
    await cluster.until_status(DEPLOYMENTS, "web", availableReplicas=3)

    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}})
    await cluster.until_count(PODS, 1)

    async def counted() -> bool:
        used = ((await cluster.get(RESOURCE_QUOTAS, "limits")).get("status") or {}).get("used") or {}
        return bool(used.get("pods") == "1")

    await cluster.until(counted)


async def test_the_limits_in_a_quotas_status_that_somebody_overwrote_are_put_right(cluster: Cluster) -> None:
    hard = {"pods": "10", "configmaps": "20"}
    await cluster.create(RESOURCE_QUOTAS, named("v1", "ResourceQuota", "limits", "default", spec={"hard": hard}))
    await cluster.until_status(RESOURCE_QUOTAS, "limits", hard=hard)

    # Twice: the first time it may be found by a recount that was due anyway.
    for pods in ("11", "12"):
        wrong = {"status": {"hard": {"pods": pods}}}
        patched = await cluster.client.patch(RESOURCE_QUOTAS, "limits", "default", wrong, subresource="status")

        assert patched["status"]["hard"]["pods"] == pods
        await cluster.until_status(RESOURCE_QUOTAS, "limits", hard=hard)


async def test_a_claim_is_bound_to_the_smallest_volume_that_fits(cluster: Cluster) -> None:
    for name, size in (("big", "10Gi"), ("fits", "2Gi"), ("small", "500Mi")):
        spec = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/x/{name}"},
                "persistentVolumeReclaimPolicy": "Retain"}  # fmt: skip
        await cluster.create(PERSISTENT_VOLUMES, named("v1", "PersistentVolume", name, spec=spec))
    request = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    await cluster.create(
        PERSISTENT_VOLUME_CLAIMS, named("v1", "PersistentVolumeClaim", "data", "default", spec=request)
    )

    claim = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")
    assert claim["spec"]["volumeName"] == "fits"
    await cluster.until_status(PERSISTENT_VOLUMES, "fits", phase="Bound")

    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    await cluster.until_status(PERSISTENT_VOLUMES, "fits", phase="Released")


async def test_aggregated_roles_gather_rules(cluster: Cluster) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    part = named("rbac.authorization.k8s.io/v1", "ClusterRole", "part", rules=[rule])
    part["metadata"]["labels"] = {"aggregate": "yes"}
    whole = named("rbac.authorization.k8s.io/v1", "ClusterRole", "whole", rules=[])
    whole["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"aggregate": "yes"}}]}
    await cluster.create(CLUSTER_ROLES, whole)
    await cluster.create(CLUSTER_ROLES, part)

    async def gathered() -> bool:
        return bool((await cluster.get(CLUSTER_ROLES, "whole")).get("rules") == [rule])

    await cluster.until(gathered)


@pytest.fixture(scope="module")
def request_pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, "system:node:n9"),
        ]
    )
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def certificate_pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:node:n9")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


async def test_a_kubelets_client_certificate_is_approved_and_signed(request_pem: bytes, certificate_pem: bytes) -> None:
    asked: list[list[str]] = []

    def sign(_pem: bytes, usages: list[str], _lifetime_s: int) -> bytes:
        asked.append(usages)
        return certificate_pem

    config = ControllerConfig(certificate_signer=sign)
    async with running(config) as cluster:
        spec = {
            "request": base64.b64encode(request_pem).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        }
        made = named("certificates.k8s.io/v1", "CertificateSigningRequest", "csr-n9", spec=spec)
        await cluster.create(CERTIFICATE_SIGNING_REQUESTS, made)

        async def signed() -> Any:
            status = (await cluster.get(CERTIFICATE_SIGNING_REQUESTS, "csr-n9")).get("status") or {}
            return status if status.get("certificate") else None

        status = await cluster.until(signed)
        assert status["conditions"][0]["reason"] == "AutoApproved"
        assert base64.b64decode(status["certificate"]) == certificate_pem
        assert asked == [["digital signature", "client auth"]]


async def test_a_budget_that_states_nothing_does_no_harm(cluster: Cluster) -> None:
    await cluster.create(POD_DISRUPTION_BUDGETS, named("policy/v1", "PodDisruptionBudget", "empty", "default"))

    await cluster.until_status(POD_DISRUPTION_BUDGETS, "empty", disruptionsAllowed=0)
