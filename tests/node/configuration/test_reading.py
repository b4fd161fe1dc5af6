"""A kubelet's configuration as a file of Kubernetes' form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from navarch.api.version import DEFAULT_VERSION
from navarch.node.config import KubeletConfig
from navarch.node.configuration.machine import objections
from navarch.node.configuration.reading import ConfigurationError, checked, configured, read, warnings
from navarch.node.configuration.shape import DURATIONS, FIELDS, WITHOUT_EFFECT

HEAD = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
OURS = KubeletConfig(node_name="n1", data=Path("/data"), runtime_socket=Path("/run/c.sock"), addresses=("127.0.0.1",))


def problem(**fields: Any) -> str:
    with pytest.raises(ConfigurationError) as found:
        checked({**HEAD, **fields}, DEFAULT_VERSION)
    return str(found.value).removeprefix("failed to validate kubelet configuration, error: ")


def made(**fields: Any) -> KubeletConfig:
    return configured(OURS, checked({**HEAD, **fields}, DEFAULT_VERSION))


def test_what_a_file_leaves_open_has_kubernetes_defaults_and_the_clusters_addresses() -> None:
    config = made()

    assert (config.max_pods, config.lease_duration_s, config.status_period_s) == (110, 40, 300.0)
    assert (config.images.parallel_pulls, config.images.high_percent, config.static_pod_check_s) == (1, 85, 20.0)
    assert {one.signal for one in config.eviction.thresholds} == {
        "memory.available",
        "nodefs.available",
        "nodefs.inodesFree",
        "imagefs.available",
        "imagefs.inodesFree",
    }
    assert config.addresses == ("127.0.0.1",)
    assert config.document["evictionHard"]["nodefs.available"] == "10%"
    assert config.document["authentication"]["webhook"] == {"enabled": True, "cacheTTL": "2m0s"}


def test_what_a_file_says_is_what_the_kubelet_does() -> None:
    config = made(
        address="0.0.0.0",
        port=10333,
        maxPods=7,
        podPidsLimit=99,
        clusterDNS=["10.9.9.9"],
        clusterDomain="kube.test",
        nodeStatusUpdateFrequency="4s",
        evictionHard={"memory.available": "1Gi"},
        evictionSoft={"nodefs.available": "20%"},
        evictionSoftGracePeriod={"nodefs.available": "1m30s"},
        evictionMinimumReclaim={"nodefs.available": "500Mi"},
        kubeReserved={"cpu": "100m", "memory": "1Gi"},
        maxParallelImagePulls=3,
        imageMaximumGCAge="24h",
        allowedUnsafeSysctls=["kernel.msg*"],
        shutdownGracePeriod="30s",
        shutdownGracePeriodCriticalPods="10s",
        cpuManagerPolicy="static",
        reservedSystemCPUs="0-1",
        resolvConf="",
    )

    assert (config.addresses, config.port, config.max_pods) == (("0.0.0.0",), 10333, 7)
    assert (config.cgroups.pod_pids, config.cluster_dns, config.cluster_domain) == (99, ("10.9.9.9",), "kube.test")
    # How often the status is written follows how often it is looked at.
    assert (config.status_look_s, config.status_period_s) == (4.0, 4.0)
    hard, soft = config.eviction.thresholds
    assert (hard.signal, hard.level.of(1 << 40), hard.grace_s) == ("memory.available", 1 << 30, 0)
    assert (soft.level.of(1000), soft.grace_s, soft.reclaim.of(0)) == (200, 90.0, 500 << 20)
    assert config.images.parallel_pulls == 3
    assert config.images.max_age_s == 86400
    assert [(one.priority, one.seconds) for one in config.shutdown_periods] == [(0, 20.0), (2_000_000_000, 10.0)]
    assert config.reserved.cpus == {0, 1}
    assert config.host_resolv_conf == Path("/dev/null")


def test_default_thresholds_are_merged_where_that_is_asked_for() -> None:
    merged = made(evictionHard={"memory.available": "1Gi"}, mergeDefaultEvictionSettings=True)

    assert merged.document["evictionHard"]["memory.available"] == "1Gi"
    assert merged.document["evictionHard"]["imagefs.available"] == "15%"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"maxPodz": 1}, 'strict decoding error: unknown field "maxPodz"'),
        ({"authentication": {"x": 1}}, 'strict decoding error: unknown field "authentication.x"'),
        ({"maxPods": "7"}, "maxPods: must be a number"),
        ({"kubeReserved": {"cpu": 1}}, "kubeReserved.cpu: must be a string"),
        ({"syncFrequency": "10"}, 'syncFrequency: time: missing unit in duration "10"'),
        ({"maxPods": -1}, "invalid configuration: maxPods (--max-pods) -1 must not be a negative number"),
        (
            {"imageGCHighThresholdPercent": 101},
            "invalid configuration: imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and "
            "100, inclusive",
        ),
        (
            {"imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 60},
            "invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 60 must be less than "
            "imageGCHighThresholdPercent (--image-gc-high-threshold) 50",
        ),
        (
            {"serializeImagePulls": True, "maxParallelImagePulls": 2},
            "invalid configuration: maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls "
            "(--serialize-image-pulls) is set to false",
        ),
        (
            {"topologyManagerPolicy": "x"},
            'invalid configuration: topologyManagerPolicy (--topology-manager-policy) "x" must be one of: ["none" '
            '"best-effort" "restricted" "single-numa-node"]',
        ),
        (
            {"enforceNodeAllocatable": ["kube-reserved"]},
            'invalid configuration: kubeReservedCgroup (--kube-reserved-cgroup) must be specified when "kube-reserved" '
            'or "kube-reserved-compressible" included in enforceNodeAllocatable (--enforce-node-allocatable)',
        ),
        (
            {"shutdownGracePeriod": "1s", "shutdownGracePeriodCriticalPods": "2s"},
            "invalid configuration: shutdownGracePeriodCriticalPods {2s} must be <= shutdownGracePeriod {1s}",
        ),
        ({"evictionHard": {"disk": "1Gi"}}, "unsupported eviction signal disk"),
        (
            {"evictionSoft": {"memory.available": "1Gi"}},
            "grace period must be specified for the soft eviction threshold memory.available",
        ),
        (
            {"evictionHard": {"memory.available": "101%"}},
            "eviction percentage threshold memory.available must be <= 100%: 101%",
        ),
        ({"featureGates": {"NoSuchGate": True}}, "unrecognized feature gate: NoSuchGate"),
        (
            {"cpuManagerPolicy": "static"},
            "the CPU Manager static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero",
        ),
        ({"containerLogMaxFiles": 1}, "invalid configuration: containerLogMaxFiles must be greater than 1"),
        ({"kubeReserved": {"gpu": "1"}}, 'invalid configuration: cannot reserve "gpu" resource'),
        ({"tlsCipherSuites": ["NONE"]}, "invalid configuration: Cipher suite NONE not supported or doesn't exist"),
    ],
)
def test_what_is_wrong_is_said_in_kubernetes_words(fields: dict[str, Any], words: str) -> None:
    assert problem(**fields).endswith(words)


def test_several_problems_are_told_together() -> None:
    assert problem(maxPods=-1, podsPerCore=-1).startswith("[invalid configuration: maxPods")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kubelet.yaml"
    file.write_text("apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n")

    with pytest.raises(ConfigurationError, match='no kind "KubeletConfiguration" is registered for version'):
        read(file, DEFAULT_VERSION)


def test_fields_that_change_nothing_here_are_told_of() -> None:
    told = warnings({**HEAD, "hairpinMode": "none", "maxPods": 3, "cgroupDriver": "systemd"})

    assert [line.split()[2] for line in told] == ["cgroupDriver", "hairpinMode"]
    assert not warnings({**HEAD, "hairpinMode": "promiscuous-bridge"})
    assert set(WITHOUT_EFFECT) <= set(FIELDS)


def test_a_machine_that_swaps_is_refused_unless_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "swaps").write_text("Filename Type Size Used Priority\n/swap file 1 0 -2\n")

    assert [line[:20] for line in objections(made(), tmp_path)] == ["running with swap on"]
    assert not list(objections(made(failSwapOn=False), tmp_path))


def test_kernel_parameters_are_checked_where_nobody_may_change_them(tmp_path: Path) -> None:
    (tmp_path / "proc" / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "proc" / "sys" / "vm" / "overcommit_memory").write_text("0\n")

    told = list(objections(made(protectKernelDefaults=True), tmp_path))

    assert told[0] == "invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cpuManagerPolicyOptions": {"x": "true"}}, 'unknown CPU Manager Policy option: "x"'),
        (
            {"cpuManagerPolicyOptions": {"align-by-socket": "true"}},
            'CPU Manager Policy Alpha-level Options not enabled, but option "align-by-socket" provided',
        ),
        ({"cpuManagerPolicyOptions": {"full-pcpus-only": "maybe"}}, 'bad value for option "full-pcpus-only"'),
        ({"topologyManagerPolicyOptions": {"x": "true"}}, 'unknown Topology Manager Policy option: "x"'),
        (
            {"topologyManagerPolicyOptions": {"max-allowable-numa-nodes": "4"}},
            'the minimum value of "max-allowable-numa-nodes" should not be less than 8',
        ),
        ({"cpuManagerPolicyOptions": {"full-pcpus-only": "true"}, "cpuManagerPolicy": "none"}, "None policy: received"),
    ],
)
def test_options_of_managers_are_checked(fields: dict[str, Any], words: str) -> None:
    static = {"cpuManagerPolicy": "static", "kubeReserved": {"cpu": "1"}}

    assert words in problem(**{**static, **fields})


def test_managers_are_told_what_a_file_says() -> None:
    config = made(
        cpuManagerPolicy="static",
        cpuManagerPolicyOptions={"full-pcpus-only": "true", "distribute-cpus-across-numa": "true"},
        memoryManagerPolicy="Static",
        reservedMemory=[{"numaNode": 0, "limits": {"memory": "1Gi"}}],
        topologyManagerPolicy="restricted",
        topologyManagerPolicyOptions={"prefer-closest-numa-nodes": "true"},
        topologyManagerScope="pod",
        kubeReserved={"cpu": "1"},
    )

    told = config.managers
    assert (told.memory_policy, told.topology_policy, told.topology_scope) == ("Static", "restricted", "pod")
    assert warnings({"topologyManagerPolicy": "restricted", "memoryManagerPolicy": "Static"}) == []


def test_the_file_that_kubeadm_writes_is_read_as_it_is() -> None:
    config = made(
        authentication={
            "anonymous": {"enabled": False},
            "webhook": {"cacheTTL": "0s", "enabled": True},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        authorization={"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
        cgroupDriver="systemd",
        clusterDNS=["10.96.0.10"],
        clusterDomain="cluster.local",
        containerRuntimeEndpoint="",
        cpuManagerReconcilePeriod="0s",
        crashLoopBackOff={},
        evictionPressureTransitionPeriod="0s",
        fileCheckFrequency="0s",
        healthzBindAddress="127.0.0.1",
        healthzPort=10248,
        httpCheckFrequency="0s",
        imageMaximumGCAge="0s",
        imageMinimumGCAge="0s",
        logging={"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}, "verbosity": 0},
        memorySwap={},
        nodeStatusReportFrequency="0s",
        nodeStatusUpdateFrequency="0s",
        rotateCertificates=True,
        runtimeRequestTimeout="0s",
        shutdownGracePeriod="0s",
        shutdownGracePeriodCriticalPods="0s",
        staticPodPath="/etc/kubernetes/manifests",
        streamingConnectionIdleTimeout="0s",
        syncFrequency="0s",
        volumeStatsAggPeriod="0s",
    )

    assert (config.cluster_dns, config.sync_period_s) == (("10.96.0.10",), 60.0)
    assert config.document["streamingConnectionIdleTimeout"] == "4h0m0s"


def test_every_duration_is_read_as_one() -> None:
    for path in DURATIONS:
        parent, _, name = path.rpartition(".")
        stated: Any = {name: "20s"}
        for one in reversed(parent.split(".") if parent else []):
            stated = {one: stated}

        assert "object" not in (found := str(_refused(stated))), found


def _refused(stated: dict[str, Any]) -> ConfigurationError | None:
    """Some are refused for their value, never for their type."""
    try:
        made(**stated)
    except ConfigurationError as error:
        return error
    return None
