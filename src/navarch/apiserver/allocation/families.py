"""Which address families a service gets, and by which policy. Pure.

In: a service's specification and the families that the cluster has, its first one first.  Out: `ipFamilies` and
`ipFamilyPolicy` filled in, or what is wrong with those that were stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from navarch.api.errors import FieldError, invalid_value
from navarch.api.meta import Obj
from navarch.kinds.core.service import needs_cluster_ip


def let_second_go(spec: Obj, was: Obj) -> None:
    """Who changes a service's policy to SingleStack, and leaves the rest as it was, gives the second family back."""
    if spec.get("ipFamilyPolicy") != "SingleStack" or was.get("ipFamilyPolicy") in (None, "SingleStack"):
        return
    for field in ("clusterIPs", "ipFamilies"):
        stated = spec.get(field) or ()
        if len(stated) > 1 and stated == was.get(field):
            spec[field] = stated[:1]


def set_families(spec: Obj, cluster: Sequence[str]) -> Iterator[FieldError]:
    if not needs_cluster_ip(spec):
        return
    families: list[str] = list(spec.get("ipFamilies") or ())
    policy = spec.get("ipFamilyPolicy")
    if spec.get("clusterIP") == "None" and not spec.get("selector"):
        # Who writes the endpoints by hand may use both families, whatever the cluster's own are.
        if policy is None:
            policy = "SingleStack" if len(families) == 1 else "RequireDualStack"
        families = families or [cluster[0]]
        if policy != "SingleStack" and len(families) == 1:
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
        spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy
        return
    addresses = [each for each in spec.get("clusterIPs") or () if each != "None"]
    if policy is None:
        policy = "RequireDualStack" if len(families) == 2 or len(addresses) == 2 else "SingleStack"
    if policy == "SingleStack" and (len(families) > 1 or len(addresses) > 1):
        detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple ipFamilies are specified"
        yield invalid_value("spec.ipFamilyPolicy", policy, detail)
        return
    if policy == "RequireDualStack" and len(cluster) < 2:
        yield invalid_value("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
        return
    for index, family in enumerate(families):
        if family not in cluster:
            yield invalid_value(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
            return
    if not families:
        families = ["IPv6" if ":" in each else "IPv4" for each in addresses] or [cluster[0]]
    if policy in ("PreferDualStack", "RequireDualStack"):
        families += [family for family in cluster if family not in families]
    spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy
