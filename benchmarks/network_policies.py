"""Network policies in the kernel: time to program many policies over a node's pods, and for the change of one.

    sudo python benchmarks/network_policies.py [--policies 1000] [--pods 110]

In a network namespace of its own, through the state and `nft` that a node uses, without a cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import statistics
import time
from typing import Any

from navarch.api.meta import Key
from navarch.node.policy.objects import pod_of, policy_of
from navarch.node.policy.state import PolicyState
from navarch.node.proxy.nftables import apply_script

_NEW_NET = 0x40000000


def policy(number: int, namespaces: int) -> dict[str, Any]:
    """Selects a group of pods of its namespace, and lets two selections, a range and ports in."""
    peers = [
        {"podSelector": {"matchLabels": {"group": f"g{(number // namespaces + 1) % 10}"}}},
        {"namespaceSelector": {"matchLabels": {"team": f"t{number % 7}"}}, "podSelector": {}},
        {"ipBlock": {"cidr": f"172.16.{number % 256}.0/24", "except": [f"172.16.{number % 256}.128/25"]}},
    ]
    ports = [{"port": "http"}, {"port": 9000 + number, "endPort": 9010 + number}]
    return {
        "metadata": {"name": f"p{number}", "namespace": f"ns{number % namespaces}"},
        "spec": {
            "podSelector": {"matchLabels": {"group": f"g{number // namespaces % 10}"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": ports}],
        },
    }


def pod(number: int, namespaces: int, group: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"pod{number}", "namespace": f"ns{number % namespaces}", "labels": {"group": f"g{group}"}},
        "spec": {"nodeName": "here", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIP": f"10.42.{number // 250}.{number % 250 + 2}", "phase": "Running"},
    }


async def main(policies: int, pods: int) -> None:
    namespaces = 10
    state = PolicyState("bench", "here", (4,))

    async def timed(what: str, lines: list[str], began_s: float) -> float:
        computed_s = time.perf_counter() - began_s
        await apply_script(lines)
        whole_s = time.perf_counter() - began_s
        if what:
            print(f"{what}: {whole_s * 1000:.1f} ms ({computed_s * 1000:.1f} ms to compute), {len(lines)} commands")
        return whole_s

    began_s = time.perf_counter()
    for number in range(namespaces):
        state.set_namespace(f"ns{number}", {"team": f"t{number}"})
    for number in range(policies):
        key = Key(f"ns{number % namespaces}", f"p{number}")
        state.set_policy(key, policy_of(policy(number, namespaces)))
    for number in range(pods):
        made = pod_of(pod(number, namespaces, number // namespaces % 10))
        assert made is not None
        state.set_pod(made.key, made)
    await timed(f"{policies} policies over {pods} pods", state.whole(), began_s)

    for what, group in (("a pod comes", 3), ("a pod goes", None), ("a pod changes its labels", 4)):
        times = []
        for round_ in range(20):
            extra = pod(pods, namespaces, round_ % 10 if group == 4 else 3)
            made = pod_of(extra)
            assert made is not None
            if group is None:
                state.set_pod(made.key, made)
                await timed("", state.take(), time.perf_counter())
            began_s = time.perf_counter()
            state.set_pod(made.key, None if group is None else made)
            times.append(await timed("", state.take() or ["list tables"], began_s))
            if group == 3:
                state.set_pod(made.key, None)
                await timed("", state.take(), time.perf_counter())
        print(f"{what}: {statistics.median(times) * 1000:.1f} ms, at most {max(times) * 1000:.1f} ms")

    times = []
    for round_ in range(20):
        obj = policy(0, namespaces)
        obj["spec"]["ingress"][0]["ports"] = [{"port": 7000 + round_}]
        began_s = time.perf_counter()
        state.set_policy(Key("ns0", "p0"), policy_of(obj))
        times.append(await timed("", state.take(), began_s))
    print(f"a policy changes: {statistics.median(times) * 1000:.1f} ms, at most {max(times) * 1000:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=110)
    arguments = parser.parse_args()
    if ctypes.CDLL(None).unshare(_NEW_NET):
        raise SystemExit("needs root")
    asyncio.run(main(arguments.policies, arguments.pods))
