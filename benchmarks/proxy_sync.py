"""What the service proxy costs: the first sync of thousands of services, and one changed endpoint among them.

Runs against the kernel, in a network namespace of its own, and so needs root and nft; takes no server. CPU time is that
of this process and of `nft`, in user mode and in the kernel, from the API objects to the rules.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import random
import resource
import time
from typing import Any

from navarch.api.meta import Key
from navarch.node.proxy.base import ProxierConfig
from navarch.node.proxy.nftables import NftablesProxier
from navarch.node.proxy.services import Place, endpoints_of, service_ports

_NEW_NET = 0x40000000


def service(number: int, kind: str, affinity: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "type": kind,
        "clusterIP": f"10.43.{number // 250}.{number % 250 + 1}",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }
    if kind == "NodePort" and number < 2768:
        spec["ports"][0]["nodePort"] = 30000 + number
    if affinity:
        spec["sessionAffinity"] = "ClientIP"
    return {"metadata": {"name": f"s{number}", "namespace": "default"}, "spec": spec}


def endpoint_slice(number: int, count: int, source: random.Random) -> dict[str, Any]:
    first = source.randrange(200)
    addresses = [f"10.42.{number % 250}.{first + each + 2}" for each in range(count)]
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": f"s{number}"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "nodeName": "here"} for address in addresses],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


async def measure(services: int, endpoints: int, changes: int, kind: str, affinity: bool) -> dict[str, Any]:
    source, place = random.Random(1), Place("here")
    proxier = NftablesProxier(ProxierConfig("navarch-benchmark", "10.42.0.0/16", "10.43.0.0/16"))
    keys = [Key("default", f"s{number}") for number in range(services)]
    ports = {key: service_ports(service(number, kind, affinity)) for number, key in enumerate(keys)}
    behind = {key: endpoints_of([endpoint_slice(number, endpoints, source)], place) for number, key in enumerate(keys)}
    began, used = time.perf_counter(), cpu_s()
    await proxier.sync(ports, behind)
    first = {"s": round(time.perf_counter() - began, 3), "cpu_s": round(cpu_s() - used, 3)}
    began, used = time.perf_counter(), cpu_s()
    for each in range(changes):
        number = source.randrange(services)
        # One more, one less, and back: what a rolling update does to a service.
        count = max(1, endpoints + each % 3 - 1)
        behind[keys[number]] = endpoints_of([endpoint_slice(number, count, source)], place)
        await proxier.sync(ports, behind, {keys[number]})
    change = {
        "ms": round((time.perf_counter() - began) / changes * 1e3, 2),
        "cpu_ms": round((cpu_s() - used) / changes * 1e3, 2),
    }
    return {"services": services, "endpoints": endpoints, "kind": kind, "first": first, "change": change}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--services", type=int, default=5000)
    options.add_argument("--endpoints", type=int, default=3, help="of each service")
    options.add_argument("--changes", type=int, default=200)
    options.add_argument("--type", choices=("ClusterIP", "NodePort"), default="ClusterIP")
    options.add_argument("--affinity", action="store_true", help="session affinity for every service")
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    chosen = options.parse_args()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NET):
        raise SystemExit(f"a network namespace of its own: {os.strerror(ctypes.get_errno())}")
    result = asyncio.run(measure(chosen.services, chosen.endpoints, chosen.changes, chosen.type, chosen.affinity))
    if chosen.output == "json":
        print(json.dumps(result))
        return
    print(f"{chosen.services} services with {chosen.endpoints} endpoints each")
    print(f"first sync   {result['first']['s']:.2f} s, {result['first']['cpu_s']:.2f} s of CPU")
    print(f"one change   {result['change']['ms']:.1f} ms, {result['change']['cpu_ms']:.1f} ms of CPU")


if __name__ == "__main__":
    main()
