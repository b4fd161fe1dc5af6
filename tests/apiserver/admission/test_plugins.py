"""The smaller plugins, each as its user meets it, through the default chain."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.certificates import CertificateApproval
from navarch.apiserver.admission.chain import Chain
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.user import User
from navarch.kinds import resources as r
from tests.apiserver.admission.cluster import Cluster, asking, pod, refusal

NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))


class TestNamespaceLifecycle:
    async def test_nothing_is_created_in_a_namespace_that_is_not_there(self) -> None:
        made = pod()
        made["metadata"]["namespace"] = "nowhere"
        error = await refusal(Cluster().create(r.PODS, made))
        assert (error.code, error.message) == (404, 'namespaces "nowhere" not found')

    async def test_nor_in_one_that_is_going(self) -> None:
        cluster = Cluster()
        await cluster.put(r.NAMESPACES, {"metadata": {"name": "old"}, "status": {"phase": "Terminating"}})
        error = await refusal(cluster.create(r.CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "old"}}))
        assert error.code == 403
        assert error.message == (
            'configmaps "x" is forbidden: unable to create new content in namespace old because it is being terminated'
        )
        assert error.details is not None
        assert error.details["causes"][0]["reason"] == "NamespaceTerminating"

    @pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
    async def test_three_namespaces_never_go(self, name: str) -> None:
        cluster = Cluster()
        await cluster.put(r.NAMESPACES, {"metadata": {"name": name}})
        error = await refusal(cluster.delete(r.NAMESPACES, name))
        assert error.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'


class TestServiceAccount:
    async def test_a_pod_finds_its_token(self) -> None:
        spec = (await Cluster().create(r.PODS, pod()))["spec"]
        (volume,) = spec["volumes"]
        (mount,) = spec["containers"][0]["volumeMounts"]
        assert spec["serviceAccountName"] == "default"
        assert volume["name"].startswith("kube-api-access-")
        assert mount == {
            "name": volume["name"],
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
        token, authority, downward = volume["projected"]["sources"]
        assert token == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
        assert authority["configMap"]["name"] == "kube-root-ca.crt"
        assert downward["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == "metadata.namespace"
        assert volume["projected"]["defaultMode"] == 420

    async def test_unless_it_or_its_account_says_no(self) -> None:
        cluster = Cluster()
        spec = (await cluster.create(r.PODS, pod("a", automountServiceAccountToken=False)))["spec"]
        assert "volumes" not in spec
        quiet = {"metadata": {"name": "quiet", "namespace": "default"}, "automountServiceAccountToken": False}
        await cluster.put(r.SERVICE_ACCOUNTS, quiet)
        assert "volumes" not in (await cluster.create(r.PODS, pod("b", serviceAccountName="quiet")))["spec"]

    async def test_an_unknown_account_is_refused(self) -> None:
        error = await refusal(Cluster().create(r.PODS, pod(serviceAccountName="nobody")))
        assert error.code == 403
        assert error.message == (
            'pods "web" is forbidden: error looking up service account default/nobody: '
            'serviceaccount "nobody" not found'
        )

    async def test_the_default_account_is_waited_for(self) -> None:
        cluster = await Cluster().start()
        account = await cluster.lose(r.SERVICE_ACCOUNTS, "default", "default")

        made, _ = await asyncio.gather(cluster.create(r.PODS, pod()), cluster.put(r.SERVICE_ACCOUNTS, account))

        assert made["spec"]["serviceAccountName"] == "default"

    async def test_pull_secrets_come_from_the_account(self) -> None:
        cluster = Cluster()
        account: Obj = {
            "metadata": {"name": "default", "namespace": "default"},
            "imagePullSecrets": [{"name": "registry"}],
        }
        await cluster.put(r.SERVICE_ACCOUNTS, account)
        assert (await cluster.create(r.PODS, pod()))["spec"]["imagePullSecrets"] == [{"name": "registry"}]


class TestLimitRanger:
    async def cluster(self, **item: Any) -> Cluster:
        cluster = Cluster()
        limits = [{"type": "Container", **item}]
        await cluster.put(
            r.LIMIT_RANGES, {"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": limits}}
        )
        return cluster

    async def test_containers_get_what_they_do_not_say(self) -> None:
        cluster = await self.cluster(default={"cpu": "1"}, defaultRequest={"cpu": "100m", "memory": "64Mi"})
        made = await cluster.create(r.PODS, pod())
        assert made["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "100m", "memory": "64Mi"},
            "limits": {"cpu": "1"},
        }
        assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
            "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
        )

    async def test_too_much_and_too_little_are_refused_together(self) -> None:
        cluster = await self.cluster(min={"cpu": "100m"}, max={"memory": "1Gi"})
        container = asking({"cpu": "50m", "memory": "2Gi"}, {"memory": "2Gi"})
        error = await refusal(cluster.create(r.PODS, pod(containers=[container])))
        assert error.message == (
            'pods "web" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, '
            "maximum memory usage per Container is 1Gi, but limit is 2Gi]"
        )

    async def test_a_ratio_is_held(self) -> None:
        cluster = await self.cluster(maxLimitRequestRatio={"cpu": "2"})
        error = await refusal(cluster.create(r.PODS, pod(containers=[asking({"cpu": "100m"}, {"cpu": "300m"})])))
        assert error.message.endswith(
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"
        )

    async def test_a_claim_has_bounds(self) -> None:
        cluster = Cluster()
        limits = [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]
        await cluster.put(
            r.LIMIT_RANGES, {"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": limits}}
        )
        error = await refusal(cluster.create(r.PERSISTENT_VOLUME_CLAIMS, claim(storage="2Gi")))
        assert error.message.endswith("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi")


def claim(storage: str = "1Gi", **spec: Any) -> Obj:
    requests = {"requests": {"storage": storage}}
    return {
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": requests, **spec},
    }


class TestPriority:
    async def test_without_class_a_pod_has_priority_zero(self) -> None:
        spec = (await Cluster().create(r.PODS, pod()))["spec"]
        assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")

    async def test_a_class_gives_its_number(self) -> None:
        cluster = Cluster()
        await cluster.put(
            r.PRIORITY_CLASSES, {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
        )
        spec = (await cluster.create(r.PODS, pod("a", priorityClassName="high")))["spec"]
        assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
        spec = (await cluster.create(r.PODS, pod("b", priorityClassName="system-node-critical")))["spec"]
        assert spec["priority"] == 2000001000

    async def test_the_default_class_names_itself(self) -> None:
        cluster = Cluster()
        await cluster.put(r.PRIORITY_CLASSES, {"metadata": {"name": "usual"}, "value": 7, "globalDefault": True})
        spec = (await cluster.create(r.PODS, pod()))["spec"]
        assert (spec["priorityClassName"], spec["priority"]) == ("usual", 7)
        other = {"metadata": {"name": "other"}, "value": 8, "globalDefault": True}
        error = await refusal(cluster.create(r.PRIORITY_CLASSES, other))
        assert "PriorityClass usual is already marked as default. Only one default can exist" in error.message

    async def test_unknown_classes_and_own_numbers_are_refused(self) -> None:
        error = await refusal(Cluster().create(r.PODS, pod(priorityClassName="x")))
        assert error.message == 'pods "web" is forbidden: no PriorityClass with name x was found'
        error = await refusal(Cluster().create(r.PODS, pod(priority=5)))
        assert "the integer value of priority (5) must not be provided in pod spec" in error.message


async def test_a_pod_stays_five_minutes_on_a_lost_node() -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    spec = (await Cluster().create(r.PODS, pod(tolerations=[own])))["spec"]
    assert spec["tolerations"] == [
        own,
        {
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        },
    ]
    everything = [{"operator": "Exists"}]
    spec = (await Cluster().create(r.PODS, pod(tolerations=everything)))["spec"]
    assert spec["tolerations"] == everything


async def test_a_new_node_takes_nothing_yet() -> None:
    node = await Cluster().create(r.NODES, {"metadata": {"name": "n1"}})
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]


async def test_claims_are_held_and_get_the_youngest_default_class() -> None:
    cluster = Cluster()
    mark = {"storageclass.kubernetes.io/is-default-class": "true"}
    for name, day in (("old", 1), ("new", 2)):
        stamp = f"2026-01-0{day}T00:00:00Z"
        await cluster.put(
            r.STORAGE_CLASSES, {"metadata": {"name": name, "annotations": mark, "creationTimestamp": stamp}}
        )
    made = await cluster.create(r.PERSISTENT_VOLUME_CLAIMS, claim())
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert made["spec"]["storageClassName"] == "new"
    none = claim(storageClassName="")
    none["metadata"]["name"] = "none"
    assert (await cluster.create(r.PERSISTENT_VOLUME_CLAIMS, none))["spec"]["storageClassName"] == ""


async def test_a_runtime_class_brings_overhead_and_place() -> None:
    cluster = Cluster()
    runtime: Obj = {
        "metadata": {"name": "vm"},
        "handler": "vm",
        "overhead": {"podFixed": {"cpu": "50m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
    }
    await cluster.put(r.RUNTIME_CLASSES, runtime)
    spec = (await cluster.create(r.PODS, pod(runtimeClassName="vm")))["spec"]
    assert spec["overhead"] == {"cpu": "50m"}
    assert spec["nodeSelector"] == {"vm": "yes"}
    assert {"key": "vm", "operator": "Exists"} in spec["tolerations"]
    error = await refusal(cluster.create(r.PODS, pod("b", runtimeClassName="x")))
    assert error.message == 'pods "b" is forbidden: pod rejected: RuntimeClass "x" not found'
    clash = pod("c", runtimeClassName="vm", nodeSelector={"vm": "no"})
    assert "conflict: runtimeClass.scheduling.nodeSelector" in (await refusal(cluster.create(r.PODS, clash))).message


class TestPodSecurity:
    async def cluster(self, **labels: str) -> Cluster:
        cluster = Cluster()
        prefixed = {f"pod-security.kubernetes.io/{mode}": level for mode, level in labels.items()}
        await cluster.put(
            r.NAMESPACES, {"metadata": {"name": "default", "labels": prefixed}, "status": {"phase": "Active"}}
        )
        return cluster

    async def test_restricted_says_all_that_is_missing(self) -> None:
        error = await refusal((await self.cluster(enforce="restricted")).create(r.PODS, pod()))
        assert error.message == (
            'pods "web" is forbidden: violates PodSecurity "restricted:latest": '
            'allowPrivilegeEscalation != false (container "c" must set '
            "securityContext.allowPrivilegeEscalation=false), "
            'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
            'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
            'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to '
            '"RuntimeDefault" or "Localhost")'
        )

    async def test_a_restricted_pod_gets_in(self) -> None:
        context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        made = pod(
            securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            containers=[{"name": "c", "image": "nginx:1", "securityContext": context}],
        )
        stored = await (await self.cluster(enforce="restricted")).create(r.PODS, made)

        assert stored["spec"]["containers"][0]["securityContext"] == context

    @pytest.mark.parametrize(
        ("spec", "text"),
        [
            ({"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
            (
                {"containers": [{"name": "c", "image": "x:1", "securityContext": {"privileged": True}}]},
                'privileged (container "c" must not set securityContext.privileged=true)',
            ),
            ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "v")'),
            (
                {
                    "containers": [
                        {"name": "c", "image": "x:1", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}
                    ]
                },
                'non-default capabilities (container "c" must not include "NET_ADMIN" in '
                "securityContext.capabilities.add)",
            ),
            (
                {"containers": [{"name": "c", "image": "x:1", "ports": [{"containerPort": 1, "hostPort": 80}]}]},
                'hostPort (container "c" uses hostPort 80)',
            ),
        ],
    )
    async def test_baseline(self, spec: Obj, text: str) -> None:
        error = await refusal((await self.cluster(enforce="baseline")).create(r.PODS, pod(**spec)))
        assert error.message == f'pods "web" is forbidden: violates PodSecurity "baseline:latest": {text}'

    async def test_warn_only_warns(self) -> None:
        cluster = await self.cluster(warn="baseline")
        await cluster.create(r.PODS, pod(hostPID=True))
        assert cluster.warnings == ['would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)']

    async def test_raising_the_level_names_the_pods_in_the_way(self) -> None:
        cluster = Cluster()
        await cluster.create(r.PODS, pod(hostPID=True))
        namespace = cluster.get(r.NAMESPACES, "", "default")
        assert namespace is not None
        namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "baseline"}
        await cluster.update_as(r.NAMESPACES, namespace)
        assert cluster.warnings == [
            'existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"',
            "web: host namespaces",
        ]


class TestNodeRestriction:
    async def test_a_node_changes_itself_alone(self) -> None:
        cluster = Cluster()
        error = await refusal(cluster.create(r.NODES, {"metadata": {"name": "n2"}}, user=NODE))
        assert error.message == 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
        node = await cluster.create(r.NODES, {"metadata": {"name": "n1"}}, user=NODE)
        node["spec"]["taints"] = []
        assert "not allowed to modify taints" in (await refusal(cluster.update_as(r.NODES, node, user=NODE))).message

    async def test_a_node_does_not_say_whom_it_is_trusted_by(self) -> None:
        labels = {"node-restriction.kubernetes.io/secure": "yes"}
        error = await refusal(Cluster().create(r.NODES, {"metadata": {"name": "n1", "labels": labels}}, user=NODE))
        assert "is not allowed to set the following labels: node-restriction.kubernetes.io/secure" in error.message

    @pytest.mark.parametrize(
        ("before", "after", "word"),
        [({"kubernetes.io/config.mirror": "x"}, {}, "remove or update"),
         ({}, {"kubernetes.io/config.mirror": "x"}, "add"),
         ({"kubernetes.io/config.mirror": "x"}, {"kubernetes.io/config.mirror": "y"}, "remove or update")],
    )  # fmt: skip
    async def test_a_node_does_not_turn_pods_into_mirrors_through_their_status(
        self, before: dict[str, str], after: dict[str, str], word: str
    ) -> None:
        cluster = Cluster()
        made = pod(nodeName="n1")
        made["metadata"]["annotations"] = before
        stored = await cluster.create(r.PODS, made)

        stored = {**stored, "metadata": {**stored["metadata"], "annotations": after}}
        error = await refusal(cluster.update_as(r.PODS, stored, user=NODE, subresource="status"))

        assert error.code == 422
        assert f"may not {word} mirror pod annotation" in error.message

    async def test_a_node_does_not_say_who_owns_a_pod_through_its_status(self) -> None:
        cluster = Cluster()
        stored = await cluster.create(r.PODS, pod(nodeName="n1"))
        owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}

        written = await cluster.update_as(
            r.PODS,
            {**stored, "metadata": {**stored["metadata"], "ownerReferences": [owner]}, "status": {"phase": "Running"}},
            user=NODE,
            subresource="status",
        )

        assert "ownerReferences" not in written["metadata"]
        assert written["status"]["phase"] == "Running"

    async def test_a_node_makes_mirror_pods_and_deletes_its_own(self) -> None:
        cluster = Cluster()
        error = await refusal(cluster.create(r.PODS, pod(nodeName="n1"), user=NODE))
        assert 'node "n1" can only create mirror pods' in error.message
        mirror = pod(nodeName="n1")
        mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        node = await cluster.create(r.NODES, {"metadata": {"name": "n1", "uid": "u"}})
        owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": True}
        mirror["metadata"]["ownerReferences"] = [owner]
        await cluster.create(r.PODS, mirror, user=NODE)
        await cluster.create(r.PODS, pod("other", nodeName="n2"))
        assert "can only delete pods" in (await refusal(cluster.delete(r.PODS, "other", "default", user=NODE))).message
        await cluster.delete(r.PODS, "web", "default", user=NODE)

    async def test_a_node_renews_its_own_lease(self) -> None:
        cluster = Cluster()
        await cluster.put(r.NAMESPACES, {"metadata": {"name": "kube-node-lease"}, "status": {"phase": "Active"}})
        lease = {"metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "n1"}}
        await cluster.create(r.LEASES, lease, user=NODE)
        lease["metadata"] = {"name": "n2", "namespace": "kube-node-lease"}
        error = await refusal(cluster.create(r.LEASES, lease, user=NODE))
        assert "can only access node lease with the same name as the requesting node" in error.message


def signing_request(group: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


async def test_nobody_asks_for_a_masters_certificate() -> None:
    spec = {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    wanted = {"metadata": {"name": "me"}, "spec": {**spec, "request": signing_request("system:masters")}}
    error = await refusal(Cluster().create(r.CERTIFICATE_SIGNING_REQUESTS, wanted))
    assert "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed" in error.message
    fine = {"metadata": {"name": "me"}, "spec": {**spec, "request": signing_request("devs")}}
    await Cluster().create(r.CERTIFICATE_SIGNING_REQUESTS, fine)


async def test_who_may_not_approve_for_a_signer_does_not() -> None:
    async def authorize(user: User, asked: RequestAttributes) -> Decision:
        return Decision(user.name == "approver" and (asked.verb, asked.name) == ("approve", "example.com/*"))

    cluster = Cluster(Chain([CertificateApproval(authorize)]))
    wanted: Obj = {"metadata": {"name": "me"}, "spec": {"signerName": "example.com/s", "usages": ["client auth"]}}
    stored = await cluster.put(r.CERTIFICATE_SIGNING_REQUESTS, wanted)
    error = await refusal(
        cluster.update_as(r.CERTIFICATE_SIGNING_REQUESTS, stored, user=User("bob"), subresource="approval")
    )
    assert error.message == (
        'certificatesigningrequests.certificates.k8s.io "me" is forbidden: '
        'user not permitted to approve requests with signerName "example.com/s"'
    )
    await cluster.update_as(r.CERTIFICATE_SIGNING_REQUESTS, stored, user=User("approver"), subresource="approval")


class TestChain:
    class Recording(Plugin):
        resources = frozenset({("", "pods")})
        operations = frozenset({"CREATE"})

        def __init__(self) -> None:
            self.seen: list[str] = []

        async def mutate(self, attributes: Attributes) -> None:
            self.seen.append("mutate")

        async def validate(self, attributes: Attributes) -> None:
            self.seen.append("validate")

    async def test_a_plugin_sees_what_it_asks_for_and_nothing_else(self) -> None:
        plugin = self.Recording()
        cluster = Cluster(Chain([plugin]))
        await cluster.create(r.PODS, pod())
        assert plugin.seen == ["mutate", "validate"]
        await cluster.create(r.NODES, {"metadata": {"name": "n1"}})
        await cluster.client().patch(r.PODS, "web", "default", {"status": {"phase": "Running"}}, subresource="status")
        await cluster.delete(r.PODS, "web", "default")
        assert plugin.seen == ["mutate", "validate"]

    async def test_a_plugin_can_be_left_out(self) -> None:
        cluster = Cluster(disabled=frozenset({"ServiceAccount"}))
        assert "volumes" not in (await cluster.create(r.PODS, pod()))["spec"]
