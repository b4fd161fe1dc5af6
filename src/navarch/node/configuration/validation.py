"""What is wrong with a `KubeletConfiguration`, in Kubernetes' words. Pure: in goes a document with its defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from navarch.api import durations, quantity
from navarch.api.features import FeatureError, Features, parse
from navarch.api.meta import Obj
from navarch.kinds.core.node import validate_taints
from navarch.node.configuration.shape import DURATIONS
from navarch.node.resources import cpusets
from navarch.node.resources.cpu_manager import ACROSS_NODES, BY_CACHE, BY_SOCKET, FULL_CORES, STRICT
from navarch.node.resources.topology_manager import MOST_NODES
from navarch.node.server.tls import CIPHER_SUITES, MINIMUM_VERSIONS
from navarch.node.thresholds import ThresholdError, thresholds_of
from navarch.numbers import is_digits

_POLICIES: Final = ("none", "best-effort", "restricted", "single-numa-node")
_ENFORCEMENTS: Final = (
    "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"
)  # fmt: skip
_VERIFICATIONS: Final = ("NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify")
# By the maturity that has its own feature gate; nothing for those that are stable.
_CPU_OPTIONS: Final = {FULL_CORES: "", STRICT: "", ACROSS_NODES: "Beta", BY_CACHE: "Beta", BY_SOCKET: "Alpha"}
_MOST_NODES: Final = "max-allowable-numa-nodes"
_TOPOLOGY_OPTIONS: Final = {"prefer-closest-numa-nodes": "", _MOST_NODES: ""}
# As Go reads them, in small letters.
_TRUE: Final = ("1", "t", "true")
_TRUTHS: Final = (*_TRUE, "0", "f", "false")
_RESERVABLE: Final = ("cpu", "memory", "ephemeral-storage", "pid")
# Field, flag, least, most (None: any).
_BOUNDS: Final = (
    ("imageGCHighThresholdPercent", "image-gc-high-threshold", 0, 100),
    ("imageGCLowThresholdPercent", "image-gc-low-threshold", 0, 100),
    ("iptablesDropBit", "iptables-drop-bit", 0, 31),
    ("iptablesMasqueradeBit", "iptables-masquerade-bit", 0, 31),
    ("oomScoreAdj", "oom-score-adj", -1000, 1000),
    ("port", "port", 1, 65535),
)
_NOT_NEGATIVE: Final = (
    ("eventBurst", "event-burst"),
    ("eventRecordQPS", "event-qps"),
    ("kubeAPIBurst", "kube-api-burst"),
    ("kubeAPIQPS", "kube-api-qps"),
    ("maxOpenFiles", "max-open-files"),
    ("maxPods", "max-pods"),
    ("podsPerCore", "pods-per-core"),
    ("registryBurst", "registry-burst"),
    ("registryPullQPS", "registry-qps"),
)
_SECOND: Final = 1_000_000_000


def duration_problems(document: Obj) -> Iterator[str]:
    """Durations that are none."""
    for path in sorted(DURATIONS):
        value: Any = document
        for name in path.split("."):
            value = (value or {}).get(name)
        if value is not None:
            try:
                durations.parse_ns(value)
            except ValueError as error:
                yield f"{path}: {error}"


def problems(config: Obj, version: str) -> list[str]:
    """All that is wrong, each as Kubernetes says it."""
    try:
        gates = gates_of(config, version)
    except FeatureError as error:
        return [str(error)]
    found = [f"invalid configuration: {words}" for check in _CHECKS for words in check(config, gates)]
    return [*found, *_thresholds(config)]


def gates_of(config: Obj, version: str) -> Features:
    """Raises FeatureError."""
    stated = config.get("featureGates") or {}
    return parse([f"{name}={str(on).lower()}" for name, on in sorted(stated.items())], version)


def _ns(config: Obj, name: str) -> int:
    return durations.parse_ns(config.get(name) or "0s")


def _numbers(config: Obj, gates: Features) -> Iterator[str]:
    if config["nodeLeaseDurationSeconds"] <= 0:
        yield "nodeLeaseDurationSeconds must be greater than 0"
    for name, flag in _NOT_NEGATIVE:
        if config.get(name, 0) < 0:
            yield f"{name} (--{flag}) {config[name]} must not be a negative number"
    for name, flag, least, most in _BOUNDS:
        if not least <= config[name] <= most:
            yield f"{name} (--{flag}) {config[name]} must be between {least} and {most}, inclusive"
    if not 0 <= config["healthzPort"] <= 65535:
        yield f"healthzPort (--healthz-port) {config['healthzPort']} must be between 1 and 65535, inclusive"
    if not 0 <= config.get("readOnlyPort", 0) <= 65535:
        yield f"readOnlyPort (--read-only-port) {config['readOnlyPort']} must be between 0 and 65535, inclusive"
    if config["nodeStatusMaxImages"] < -1:
        images = config["nodeStatusMaxImages"]
        yield f"nodeStatusMaxImages (--node-status-max-images) {images} must be -1 or greater"
    factor = config["memoryThrottlingFactor"]
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor <= 1:
        yield f"memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"
    if config.get("systemCgroups") and not config.get("cgroupRoot"):
        yield ("systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified")
    if config.get("runOnce"):
        yield "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set"
    if config.get("cgroupDriver") not in ("cgroupfs", "systemd"):
        yield f"cgroupDriver (--cgroup-driver) {config['cgroupDriver']} must be cgroupfs or systemd"
    quota = _ns(config, "cpuCFSQuotaPeriod")
    if not gates.on("CustomCPUCFSQuotaPeriod") and quota != _SECOND // 10:
        words = f"{{{durations.text_of(quota)}}} requires feature gate CustomCPUCFSQuotaPeriod"
        yield f"cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {words}"
    elif not _SECOND // 1000 <= quota <= _SECOND:
        words = f"{{{durations.text_of(quota)}}} must be between 1ms and 1sec, inclusive"
        yield f"cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {words}"


def _images(config: Obj, gates: Features) -> Iterator[str]:
    low, high = config["imageGCLowThresholdPercent"], config["imageGCHighThresholdPercent"]
    if low >= high:
        yield (
            f"imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than "
            f"imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
        )
    youngest, oldest = _ns(config, "imageMinimumGCAge"), _ns(config, "imageMaximumGCAge")
    for name, age in (("imageMinimumGCAge", youngest), ("imageMaximumGCAge", oldest)):
        if age < 0:
            yield f"{name} {durations.text_of(age)} must not be negative"
    if 0 < oldest <= youngest:
        ages = f"imageMaximumGCAge {durations.text_of(oldest)} must be greater than imageMinimumGCAge"
        yield f"{ages} {durations.text_of(youngest)}"
    pulls = config.get("maxParallelImagePulls")
    if pulls is not None and pulls < 1:
        yield f"maxParallelImagePulls {pulls} must be a positive number"
    if config["serializeImagePulls"] and (pulls or 0) > 1:
        yield (
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is "
            "set to false"
        )
    policy = config["imagePullCredentialsVerificationPolicy"]
    if policy not in _VERIFICATIONS:
        words = _choice(_VERIFICATIONS)
        yield f'option "{policy}" specified for imagePullCredentialsVerificationPolicy. Valid options are {words}'
    if config.get("preloadedImagesVerificationAllowlist") and policy != "NeverVerifyAllowlistedImages":
        yield (
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not "
            '"NeverVerifyAllowlistedImages"'
        )
    for pattern in config.get("preloadedImagesVerificationAllowlist") or ():
        if "*" in pattern.removesuffix("/*") or "@" in pattern or ":" in pattern.rpartition("/")[2]:
            words = "invalid image pattern in `preloadedImagesVerificationAllowlist`"
            yield f'{words}: "{pattern}": an image without tag and digest, or a path that ends in "/*"'


def _choice(options: tuple[str, ...]) -> str:
    quoted = [f'"{option}"' for option in options]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _logs(config: Obj, gates: Features) -> Iterator[str]:
    if config["containerLogMaxWorkers"] < 1:
        yield "containerLogMaxWorkers must be greater than or equal to 1"
    if _ns(config, "containerLogMonitorInterval") < 3 * _SECOND:
        yield "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
    if config["containerLogMaxFiles"] <= 1:
        yield "containerLogMaxFiles must be greater than 1"
    try:
        quantity.parse(config["containerLogMaxSize"])
    except ValueError as error:
        yield f"failed to parse container log max size {config['containerLogMaxSize']!r}: {error}"
    place = config["podLogsDir"]
    if not place.startswith("/"):
        yield f'pod logs path "{place}" must be absolute path'
    elif place != "/" and (place.endswith("/") or "//" in place or {".", ".."} & set(place.split("/"))):
        yield f'pod logs path "{place}" must be normalized'
    if config.get("enableSystemLogQuery") and not gates.on("NodeLogQuery"):
        yield "NodeLogQuery feature gate is required for enableSystemLogQuery"


def _topology(config: Obj, gates: Features) -> Iterator[str]:
    policy, scope = config["topologyManagerPolicy"], config["topologyManagerScope"]
    if policy not in _POLICIES:
        words = " ".join(f'"{one}"' for one in _POLICIES)
        yield f'topologyManagerPolicy (--topology-manager-policy) "{policy}" must be one of: [{words}]'
    if scope not in ("container", "pod"):
        yield f'topologyManagerScope (--topology-manager-scope) "{scope}" must be one of: "container", or "pod"'
    if config["cpuManagerPolicy"] not in ("none", "static"):
        yield f'unknown policy: "{config["cpuManagerPolicy"]}"'
    yield from _options(
        "CPU Manager", _CPU_OPTIONS, config.get("cpuManagerPolicyOptions") or {}, gates, "CPUManagerPolicy{}Options"
    )
    yield from _options(
        "Topology Manager",
        _TOPOLOGY_OPTIONS,
        config.get("topologyManagerPolicyOptions") or {},
        gates,
        "TopologyManagerPolicy{}Options",
    )
    yield from _conflicts(config)
    if config["cpuManagerPolicy"] == "static" and not _reserves_cpu(config):
        yield ("the CPU Manager static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")
    if config["memoryManagerPolicy"] not in ("None", "Static"):
        yield f'unknown policy: "{config["memoryManagerPolicy"]}"'
    text = config.get("reservedSystemCPUs")
    if text:
        if config.get("systemReservedCgroup") or config.get("kubeReservedCgroup"):
            yield (
                "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) "
                "or kubeReservedCgroup (--kube-reserved-cgroup)"
            )
        try:
            cpusets.parse(text)
        except ValueError as error:
            yield f"unable to parse reservedSystemCPUs (--reserved-cpus) {text}, error: {error}"
    yield from _reserved_memory(config.get("reservedMemory") or [])


def _options(title: str, known: Mapping[str, str], stated: Obj, gates: Features, gate: str) -> Iterator[str]:
    """Options of a policy: unknown ones, those that their feature gate does not let through, and their values."""
    for option, value in sorted(stated.items()):
        if option not in known:
            yield f'unknown {title} Policy option: "{option}"'
        elif known[option] and not gates.on(gate.format(known[option])):
            yield f'{title} Policy {known[option]}-level Options not enabled, but option "{option}" provided'
        elif option == _MOST_NODES:
            if not is_digits(value):
                yield f'unable to convert policy option to integer "{option}": "{value}" is no number'
            elif int(value) < MOST_NODES:
                yield f'the minimum value of "{option}" should not be less than {MOST_NODES}'
        elif value.lower() not in _TRUTHS:
            yield f'bad value for option "{option}": strconv.ParseBool: parsing "{value}": invalid syntax'


def _conflicts(config: Obj) -> Iterator[str]:
    """Options that do not go together."""
    stated = config.get("cpuManagerPolicyOptions") or {}
    on = {option for option, value in stated.items() if value.lower() in _TRUE}
    if stated and config["cpuManagerPolicy"] == "none":
        words = " ".join(f"{name}:{value}" for name, value in sorted(stated.items()))
        yield f"None policy: received unsupported options=map[{words}]"
    if BY_SOCKET in on and config["topologyManagerPolicy"] == "single-numa-node":
        yield ("Topology manager single-numa-node policy is incompatible with CPUManager Align by socket policy option")
    if {BY_CACHE, ACROSS_NODES} <= on:
        yield (
            "static policy options PreferAlignCpusByUncoreCache and DistributeCPUsAcrossNUMA can not be used at the "
            "same time"
        )


def _reserves_cpu(config: Obj) -> bool:
    kept = [(config.get(field) or {}).get("cpu", "0") for field in ("kubeReserved", "systemReserved")]
    return bool(config.get("reservedSystemCPUs")) or any(amount not in ("", "0", "0m") for amount in kept)


def _reserved_memory(stated: list[Obj]) -> Iterator[str]:
    seen: set[tuple[int, str]] = set()
    for one in stated:
        node, limits = int(one.get("numaNode") or 0), one.get("limits") or {}
        if not limits:
            yield f"memory reservation limit for NUMA node {node} is empty"
        for name, amount in limits.items():
            if (node, name) in seen:
                yield f"the reserved memory has a duplicate value for NUMA node {node} and resource {name}"
            seen.add((node, name))
            if name != "memory" and not name.startswith("hugepages-"):
                yield f'the limit type "{name}" for NUMA node {node} is not supported, only memory and hugepages are'
            try:
                empty = not quantity.parse(amount)
            except ValueError as error:
                yield f"{error}: {amount}"
            else:
                if empty:
                    yield f'reserved memory may not be zero for NUMA node {node} and resource "{name}"'


def _shutdown(config: Obj, gates: Features) -> Iterator[str]:
    whole, critical = _ns(config, "shutdownGracePeriod"), _ns(config, "shutdownGracePeriodCriticalPods")
    texts = {"shutdownGracePeriod": whole, "shutdownGracePeriodCriticalPods": critical}
    if critical > whole:
        first, second = (f"{{{durations.text_of(each)}}}" for each in (critical, whole))
        yield f"shutdownGracePeriodCriticalPods {first} must be <= shutdownGracePeriod {second}"
    for name, period in texts.items():
        if period < 0 or 0 < period < _SECOND:
            yield f"{name} {{{durations.text_of(period)}}} must be either zero or otherwise >= 1 sec"
    if config.get("shutdownGracePeriodByPodPriority") and (whole > 0 or critical > 0):
        yield "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
    behaviour = (config["memorySwap"] or {}).get("swapBehavior") or ""
    if behaviour not in ("", "NoSwap", "LimitedSwap"):
        yield f'memorySwap.swapBehavior "{behaviour}" must be one of: "", "LimitedSwap" or "NoSwap"'
    longest = config["crashLoopBackOff"].get("maxContainerRestartPeriod")
    if longest is None:
        return
    if not gates.on("KubeletCrashLoopBackOffMax"):
        yield (
            "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not "
            "be set"
        )
    elif not _SECOND <= durations.parse_ns(longest) <= 300 * _SECOND:
        got = f"(got: {durations.parse_s(longest):g} seconds) must be set between 1s and 300s"
        yield f"CrashLoopBackOff.MaxContainerRestartPeriod {got}"


def _enforcement(config: Obj, gates: Features) -> Iterator[str]:
    stated: list[str] = config["enforceNodeAllocatable"]
    for kind in ("system", "kube"):
        both = (f"{kind}-reserved", f"{kind}-reserved-compressible")
        if all(one in stated for one in both):
            yield (
                f'both "{both[0]}" and "{both[1]}" cannot be specified together in enforceNodeAllocatable '
                "(--enforce-node-allocatable)"
            )
    seen: set[str] = set()
    for one in stated:
        if one in seen:
            yield f'duplicated enforcements "{one}" in enforceNodeAllocatable (--enforce-node-allocatable)'
            continue
        seen.add(one)
        if one == "none":
            if len(stated) > 1:
                yield (
                    "enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when "
                    '"none" is specified'
                )
            continue
        if one not in _ENFORCEMENTS:
            words = f"Valid options are {_choice(_ENFORCEMENTS)}"
            yield f'option "{one}" specified for enforceNodeAllocatable (--enforce-node-allocatable). {words}'
            continue
        kind = one.partition("-")[0]
        if kind in ("system", "kube") and not config.get(f"{kind}ReservedCgroup"):
            names = f'"{kind}-reserved" or "{kind}-reserved-compressible"'
            yield (
                f"{kind}ReservedCgroup (--{kind}-reserved-cgroup) must be specified when {names} included in "
                "enforceNodeAllocatable (--enforce-node-allocatable)"
            )
        if not config["cgroupsPerQOS"]:
            yield (
                f'cgroupsPerQOS (--cgroups-per-qos) must be set to true when "{one}" contained in '
                "enforceNodeAllocatable (--enforce-node-allocatable)"
            )
    if config["hairpinMode"] not in ("none", "hairpin-veth", "promiscuous-bridge"):
        words = 'Valid options are "none", "hairpin-veth" or "promiscuous-bridge"'
        yield f'option "{config["hairpinMode"]}" specified for hairpinMode (--hairpin-mode). {words}'
    policy = config["memoryReservationPolicy"]
    if policy not in ("None", "TieredReservation"):
        words = 'Valid options are "None" or "TieredReservation"'
        yield f'option "{policy}" specified for memoryReservationPolicy. {words}'
    elif policy != "None" and not gates.on("MemoryQoS"):
        yield f'memoryReservationPolicy "{policy}" requires MemoryQoS feature gate to be enabled'


def _reservations(config: Obj, gates: Features) -> Iterator[str]:
    for field in ("kubeReserved", "systemReserved"):
        for name, amount in (config.get(field) or {}).items():
            if name not in _RESERVABLE:
                yield f'cannot reserve "{name}" resource'
                continue
            try:
                number = quantity.parse(amount)
            except ValueError as error:
                yield f'failed to parse quantity "{amount}" for "{name}" resource: {error}'
            else:
                if number < 0:
                    yield f'resource quantity for "{name}" cannot be negative: {amount}'
    for taint in config.get("registerWithTaints") or []:
        if any(validate_taints([taint], "registerWithTaints")):
            yield f"invalid taint: {taint}"
        if taint.get("timeAdded"):
            yield "taint.TimeAdded is not nil"
    for suite in config.get("tlsCipherSuites") or ():
        if suite not in CIPHER_SUITES:
            yield f"Cipher suite {suite} not supported or doesn't exist"
    version = config.get("tlsMinVersion") or ""
    if version not in MINIMUM_VERSIONS:
        yield f'unknown tls version "{version}"'
    mode = config["authorization"]["mode"]
    if mode not in ("AlwaysAllow", "Webhook"):
        yield f"unknown authorization mode {mode}"


def _thresholds(config: Obj) -> Iterator[str]:
    try:
        thresholds_of(
            config["evictionHard"],
            config.get("evictionSoft"),
            config.get("evictionSoftGracePeriod"),
            config.get("evictionMinimumReclaim"),
        )
    except ThresholdError as error:
        yield str(error)


_CHECKS: Final[tuple[Callable[[Obj, Features], Iterator[str]], ...]] = (
    _numbers, _images, _topology, _shutdown, _enforcement, _logs, _reservations
)  # fmt: skip
