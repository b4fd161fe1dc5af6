"""Expansion, service variables, names, restart rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.node.fieldref import expand
from navarch.node.podspec import should_restart
from navarch.node.spec.dns import Resolver, resolver_of
from navarch.node.spec.env import service_variables
from tests.node.objects import Obj, pod


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("x$(A)$(A)", "x11"),
        ("$A $ $(", "$A $ $("),
        ("$$$(A)", "$1"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@given(st.text())
def test_text_without_dollar_is_left_alone(text: str) -> None:
    assert expand(text.replace("$", ""), {"A": "1"}) == text.replace("$", "")


def test_service_variables() -> None:
    service = {
        "metadata": {"name": "a-b"},
        "spec": {"clusterIP": "1.2.3.4", "ports": [{"port": 80, "protocol": "UDP"}]},
    }
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}

    assert service_variables([service, headless]) == {
        "A_B_SERVICE_HOST": "1.2.3.4",
        "A_B_SERVICE_PORT": "80",
        "A_B_PORT": "udp://1.2.3.4:80",
        "A_B_PORT_80_UDP": "udp://1.2.3.4:80",
        "A_B_PORT_80_UDP_PROTO": "udp",
        "A_B_PORT_80_UDP_PORT": "80",
        "A_B_PORT_80_UDP_ADDR": "1.2.3.4",
    }


@pytest.mark.parametrize(
    ("spec", "servers", "searches"),
    [
        ({}, ["10.0.0.10"], ["ns.svc.c.l", "svc.c.l", "c.l", "host"]),
        ({"dnsPolicy": "Default"}, ["9.9.9.9"], ["host"]),
        ({"hostNetwork": True}, ["9.9.9.9"], ["host"]),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            ["10.0.0.10"],
            ["ns.svc.c.l", "svc.c.l", "c.l", "host"],
        ),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}, ["1.1.1.1"], []),
    ],
)
def test_dns_by_policy(spec: Obj, servers: list[str], searches: list[str]) -> None:
    resolver = resolver_of(pod({"name": "c"}, **spec), Resolver(["9.9.9.9"], ["host"], []), ["10.0.0.10"], "c.l")

    assert (resolver.servers, resolver.searches) == (servers, searches)


def test_restart_rules_come_before_policies() -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    container = {"name": "c", "restartPolicy": "Never", "restartPolicyRules": [rule]}

    assert should_restart(pod(container), container, 42)
    assert not should_restart(pod(container), container, 1)
    assert not should_restart(pod({"name": "c"}, restartPolicy="OnFailure"), {"name": "c"}, 0)
