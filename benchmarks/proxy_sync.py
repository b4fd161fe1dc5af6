"""What the service proxy costs: the first sync of thousands of services, and one changed endpoint among them.

Runs against the kernel, in a network namespace of its own, and so needs root and what the mode needs; takes no server.
CPU time is that of this process and of `nft` or `iptables`, in user mode and in the kernel, from the API objects to the
rules. `--requests` measures TCP connections a second through a virtual IP and directly, among all these services, and
how long after a change of its endpoints a connection follows.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import random
import resource
import socket
import threading
import time
from typing import Any

from pyroute2 import IPRoute

from navarch.api.meta import Key
from navarch.node.proxy.base import Proxier, ProxierConfig
from navarch.node.proxy.configuration import MODES
from navarch.node.proxy.modes import make
from navarch.node.proxy.services import Place, endpoints_of, service_ports

_NEW_NET = 0x40000000
_HERE = "10.42.255.1"


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


def service_at(address: str, name: str) -> dict[str, Any]:
    spec = {"type": "ClusterIP", "clusterIP": address, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


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


def answer(port: int, word: bytes) -> None:
    """Say a word to each who connects, in a thread that ends with the process."""
    server = socket.create_server((_HERE, port), backlog=1024)

    def run() -> None:
        while True:
            client, _ = server.accept()
            client.sendall(word)
            client.close()

    threading.Thread(target=run, daemon=True).start()


def ask(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), timeout=5) as client:
        return client.recv(10)


def per_second(address: str, port: int, count: int) -> int:
    began = time.perf_counter()
    for _ in range(count):
        ask(address, port)
    return round(count / (time.perf_counter() - began))


async def packets(proxier: Proxier, ports: dict[Key, Any], behind: dict[Key, Any], count: int) -> dict[str, Any]:
    """With one service more, whose endpoints are here."""
    vip, key = "10.43.255.1", Key("default", "asked")
    ports[key] = service_ports(service_at(vip, "asked"))
    for port, word in ((9001, b"1"), (9002, b"2")):
        answer(port, word)

    async def lead_to(port: int) -> None:
        found = {"endpoints": [{"addresses": [_HERE], "nodeName": "here"}], "addressType": "IPv4"}
        found["ports"] = [{"name": "http", "port": port, "protocol": "TCP"}]
        behind[key] = endpoints_of([found], Place("here"))
        await proxier.sync(ports, behind, {key})

    await lead_to(9001)
    rates = {"direct": [0], "through": [0]}
    for _ in range(4):
        rates["direct"].append(await asyncio.to_thread(per_second, _HERE, 9001, count))
        rates["through"].append(await asyncio.to_thread(per_second, vip, 80, count))
    took = []
    for each in range(20):
        wanted = 9001 + (each + 1) % 2
        began = time.perf_counter()
        await lead_to(wanted)
        while await asyncio.to_thread(ask, vip, 80) != str(wanted - 9000).encode():
            pass
        took.append((time.perf_counter() - began) * 1e3)
    return {name: max(each) for name, each in rates.items()} | {"follows_ms": round(sorted(took)[len(took) // 2], 2)}


async def measure(
    mode: str, services: int, endpoints: int, changes: int, kind: str, affinity: bool, requests: int
) -> dict[str, Any]:
    source, place = random.Random(1), Place("here")
    proxier = make(mode, ProxierConfig("navarch-benchmark", "10.42.0.0/16", "10.43.0.0/16"))
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
    result = {
        "mode": mode,
        "services": services,
        "endpoints": endpoints,
        "kind": kind,
        "first": first,
        "change": change,
    }
    return result | ({"packets": await packets(proxier, ports, behind, requests)} if requests else {})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--services", type=int, default=5000)
    options.add_argument("--endpoints", type=int, default=3, help="of each service")
    options.add_argument("--changes", type=int, default=200)
    options.add_argument("--type", choices=("ClusterIP", "NodePort"), default="ClusterIP")
    options.add_argument("--mode", choices=MODES, default=MODES[0])
    options.add_argument("--requests", type=int, default=0, help="connections to measure packets with")
    options.add_argument("--affinity", action="store_true", help="session affinity for every service")
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    chosen = options.parse_args()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NET):
        raise SystemExit(f"a network namespace of its own: {os.strerror(ctypes.get_errno())}")
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
        ip.addr("add", index=1, address=_HERE, prefixlen=32)
        # As the pod network does: without a route nothing is sent that rules could turn elsewhere.
        ip.route("add", dst="10.43.0.0/16", oif=1, scope="link")
    result = asyncio.run(
        measure(
            chosen.mode,
            chosen.services,
            chosen.endpoints,
            chosen.changes,
            chosen.type,
            chosen.affinity,
            chosen.requests,
        )
    )
    if chosen.output == "json":
        print(json.dumps(result))
        return
    print(f"{chosen.mode}: {chosen.services} services with {chosen.endpoints} endpoints each")
    print(f"first sync   {result['first']['s']:.2f} s, {result['first']['cpu_s']:.2f} s of CPU")
    if asked := result.get("packets"):
        print(f"connections  {asked['through']}/s through a virtual IP, {asked['direct']}/s directly")
        print(f"following    {asked['follows_ms']} ms after a change of endpoints")
    print(f"one change   {result['change']['ms']:.1f} ms, {result['change']['cpu_ms']:.1f} ms of CPU")


if __name__ == "__main__":
    main()
