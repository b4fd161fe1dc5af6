"""What names mean, over real informers that were filled by hand."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.client.base import Client
from navarch.client.informer import Informer
from navarch.client.resources import ENDPOINT_SLICES, SERVICES
from navarch.node.dns.records import (
    ADDRESS_INDEX,
    SERVICE_INDEX,
    Answer,
    ClusterRecords,
    Outcome,
    services_by_address,
    slices_by_address,
    slices_by_service,
)
from tests.client.fake import ScriptedTransport
from tests.node.proxy.objects import endpoint, endpoint_slice, service


class Names:
    def __init__(self) -> None:
        client = Client(ScriptedTransport([], []))
        self._services = Informer(client, SERVICES, indexers={ADDRESS_INDEX: services_by_address})
        self._slices = Informer(
            client, ENDPOINT_SLICES, indexers={SERVICE_INDEX: slices_by_service, ADDRESS_INDEX: slices_by_address}
        )
        self.records = ClusterRecords(
            self._services,
            self._slices,
            domain="cluster.local",
            dns_ip="10.43.0.10",
            ranges=["10.42.0.0/16", "10.43.0.0/16"],
        )

    def put(self, obj: dict[str, Any]) -> None:
        informer = self._services if obj["kind"] == "Service" else self._slices
        informer._store(obj)

    def ask(self, name: str, kind: str = "A") -> Answer:
        return self.records.lookup(name, kind)

    def data(self, name: str, kind: str = "A") -> list[Any]:
        return [record.data for record in self.ask(name, kind).records]


@pytest.fixture
def names() -> Names:
    names = Names()
    names.put(service("web", "10.43.0.100"))
    names.put(service("db", "None", ports=[{"name": "sql", "port": 5432}]))
    first = {**endpoint("10.42.0.5"), "hostname": "db-0"}
    slices = endpoint_slice(
        first,
        endpoint("10.42.0.6"),
        endpoint("10.42.0.7", ready=False),
        service="db",
        ports=[{"name": "sql", "port": 5432, "protocol": "TCP"}],
    )
    slices["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    names.put(slices)
    names.put(service("ext", "", type="ExternalName", externalName="Example.com."))
    names.put(service("alias", "", type="ExternalName", externalName="web.default.svc.cluster.local"))
    return names


def test_a_service_is_its_virtual_ip(names: Names) -> None:
    assert names.data("Web.Default.svc.cluster.local") == ["10.43.0.100"]
    assert names.ask("web.default.svc.cluster.local", "AAAA").outcome is Outcome.NO_DATA
    assert names.ask("nope.default.svc.cluster.local").outcome is Outcome.NO_NAME


def test_a_headless_service_is_its_ready_endpoints_each_with_a_name(names: Names) -> None:
    assert names.data("db.default.svc.cluster.local") == ["10.42.0.5", "10.42.0.6"]
    assert names.data("db-0.db.default.svc.cluster.local") == ["10.42.0.5"]
    assert names.data("10-42-0-6.db.default.svc.cluster.local") == ["10.42.0.6"]
    assert names.ask("10-42-0-7.db.default.svc.cluster.local").outcome is Outcome.NO_NAME
    assert names.ask("db-0.db.default.svc.cluster.local", "AAAA").outcome is Outcome.NO_DATA


def test_ports_have_srv_records(names: Names) -> None:
    full = "web.default.svc.cluster.local"
    answer = names.ask(f"_http._tcp.{full}", "SRV")
    assert [record.data for record in answer.records] == [(0, 100, 80, full)]
    assert [record.data for record in answer.extra] == ["10.43.0.100"]

    assert names.data("_sql._tcp.db.default.svc.cluster.local", "SRV") == [
        (0, 50, 5432, "10-42-0-6.db.default.svc.cluster.local"),
        (0, 50, 5432, "db-0.db.default.svc.cluster.local"),
    ]
    assert names.ask(f"_http._udp.{full}", "SRV").outcome is Outcome.NO_NAME
    assert names.ask(f"_tcp.{full}", "SRV").outcome is Outcome.NO_DATA


def test_aliases_lead_out_of_the_cluster_or_within_it(names: Names) -> None:
    outside = names.ask("ext.default.svc.cluster.local")
    assert (outside.records[0].type, outside.records[0].data, outside.target) == ("CNAME", "example.com", "example.com")

    inside = names.ask("alias.default.svc.cluster.local")
    assert [record.data for record in inside.records] == ["web.default.svc.cluster.local", "10.43.0.100"]
    assert inside.target == ""


def test_aliases_of_aliases_are_followed_but_not_in_circles(names: Names) -> None:
    def alias(name: str, target: str) -> None:
        names.put(service(name, "", type="ExternalName", externalName=f"{target}.default.svc.cluster.local"))

    alias("second", "alias")
    alias("ping", "pong")
    alias("pong", "ping")
    for at in range(20):
        alias(f"chain-{at}", f"chain-{at + 1}")

    assert names.data("second.default.svc.cluster.local")[-1] == "10.43.0.100"
    assert len(names.data("ping.default.svc.cluster.local")) == 2
    assert len(names.data("chain-0.default.svc.cluster.local")) == 8
    answer = names.ask("second.default.svc.cluster.local")
    owners = names.records.owners("second.default.svc.cluster.local", answer)
    assert owners is not None
    assert {key.name for key in owners} == {"second", "alias", "web"}


def test_addresses_have_names(names: Names) -> None:
    assert names.data("100.0.43.10.in-addr.arpa", "PTR") == ["web.default.svc.cluster.local"]
    assert names.data("5.0.42.10.in-addr.arpa", "PTR") == ["db-0.db.default.svc.cluster.local"]
    assert names.ask("9.9.42.10.in-addr.arpa", "PTR").outcome is Outcome.NO_NAME
    assert names.ask("8.8.8.8.in-addr.arpa", "PTR").outcome is Outcome.FORWARD
    assert names.ask("nonsense.in-addr.arpa", "PTR").outcome is Outcome.FORWARD


def test_pods_have_names_made_of_their_address(names: Names) -> None:
    assert names.data("1-2-3-4.default.pod.cluster.local") == ["1.2.3.4"]
    assert names.ask("1-2-3.default.pod.cluster.local").outcome is Outcome.NO_NAME


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("cluster.local", Outcome.NO_DATA),
        ("svc.cluster.local", Outcome.NO_DATA),
        ("default.svc.cluster.local", Outcome.NO_DATA),
        ("nowhere.svc.cluster.local", Outcome.NO_NAME),
        ("web.default.svc.cluster.local.cluster.local", Outcome.NO_NAME),
        ("x.web.default.svc.cluster.local", Outcome.NO_NAME),
        ("example.com", Outcome.FORWARD),
        ("notcluster.local", Outcome.FORWARD),
    ],
)
def test_names_that_exist_without_records_are_not_names_that_do_not_exist(
    names: Names, name: str, outcome: Outcome
) -> None:
    assert names.ask(name).outcome is outcome


def test_the_version_of_the_specification(names: Names) -> None:
    assert names.data("dns-version.cluster.local", "TXT") == ["1.1.0"]


def test_a_service_that_changes_its_type_changes_its_meaning(names: Names) -> None:
    changed = service("ext", "10.43.0.7")
    changed["metadata"]["resourceVersion"] = "2"
    names.put(changed)

    assert names.data("ext.default.svc.cluster.local") == ["10.43.0.7"]
