"""Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import created, refused, row, updated

GROUP = "networking.k8s.io"
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}


def ingress(path: Any = None, **rule: Any) -> Any:
    entry = {"path": "/", "pathType": "Prefix", "backend": BACKEND, **(path or {})}
    return {"spec": {"rules": [{"http": {"paths": [entry]}, **rule}]}}


PATH = "spec.rules[0].http.paths[0]"


@pytest.mark.parametrize(
    ("obj", "error"),
    [
        ({"spec": {}}, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"),
        (ingress({"pathType": None}), f"{PATH}.pathType: Required value: pathType must be specified"),
        (ingress({"path": "x"}), f'{PATH}.path: Invalid value: "x": must be an absolute path'),
        (ingress({"path": "/a//b"}), f"{PATH}.path: Invalid value: \"/a//b\": must not contain '//'"),
        (
            ingress({"backend": {"service": {"name": "web"}}}),
            f"{PATH}.backend: Required value: port name or number is required",
        ),
        (
            ingress(host="1.2.3.4"),
            'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
        ),
    ],
)
def test_what_is_refused_of_an_ingress(obj: Any, error: str) -> None:
    assert error in refused(GROUP, "Ingress", obj)


def test_the_table_of_ingresses() -> None:
    obj, errors = created(GROUP, "Ingress", ingress(host="*.example.com"))
    assert errors == []
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert row(GROUP, "Ingress", obj) == ["web", "<none>", "*.example.com", "", "80", "24h"]
    obj["spec"] |= {"ingressClassName": "nginx", "tls": [{}], "rules": [{"host": h} for h in "abcd"]}
    obj["status"] = {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}]}}
    assert row(GROUP, "Ingress", obj)[1:5] == ["nginx", "a,b,c + 1 more...", "10.0.0.1,10.0.0.2", "80, 443"]


def test_an_ingress_class_keeps_its_controller() -> None:
    old, errors = created(
        GROUP, "IngressClass", {"spec": {"controller": "example.com/x", "parameters": {"kind": "P", "name": "p"}}}
    )
    assert errors == []
    assert old["spec"]["parameters"]["scope"] == "Cluster"
    assert row(GROUP, "IngressClass", old)[:3] == ["web", "example.com/x", "P/p"]
    new = {**old, "spec": {**old["spec"], "controller": "example.com/y"}}
    assert updated(GROUP, "IngressClass", old, new)[1] == [
        'spec.controller: Invalid value: "example.com/y": field is immutable'
    ]


def test_network_policy_defaults() -> None:
    spec = created(GROUP, "NetworkPolicy", {"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}})[0][
        "spec"
    ]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"][0]["ports"] == [{"port": 53, "protocol": "TCP"}]
    assert created(GROUP, "NetworkPolicy", {"spec": {}})[0]["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"from": [{}]}, "spec.ingress[0].from[0]: Required value: must specify a peer"),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]},
            'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`',
        ),
        (
            {"ports": [{"port": 9, "endPort": 8}]},
            "spec.ingress[0].ports[0].endPort: Invalid value: 9: must be greater than or equal to `port`",
        ),
    ],
)
def test_what_is_refused_of_a_network_policy(rule: Any, error: str) -> None:
    assert error in refused(GROUP, "NetworkPolicy", {"spec": {"ingress": [rule]}})


def test_an_address_is_named_by_itself_and_says_whose_it_is() -> None:
    spec = {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}
    obj, errors = created(GROUP, "IPAddress", {"metadata": {"name": "10.0.0.1"}, "spec": spec})
    assert errors == []
    assert row(GROUP, "IPAddress", obj)[1] == "services/default/web"
    assert refused(GROUP, "IPAddress", {"spec": spec}) == [
        'metadata.name: Invalid value: "web": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
    ]


def test_a_service_cidr_may_gain_a_second_family_and_no_more() -> None:
    old = created(GROUP, "ServiceCIDR", {"spec": {"cidrs": ["10.0.0.0/16"]}})[0]
    assert updated(GROUP, "ServiceCIDR", old, {**old, "spec": {"cidrs": ["10.0.0.0/16", "fd00::/108"]}})[1] == []
    assert updated(GROUP, "ServiceCIDR", old, {**old, "spec": {"cidrs": ["10.1.0.0/16"]}})[1] != []
