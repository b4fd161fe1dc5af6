"""What a Corefile says of whom to ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.node.dns.corefile import HOST, parse

KUBEADM = """
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""
STUBS = """
# Everything else goes to two servers.
. {
    forward . 192.0.2.1 dns://[2001:db8::1]:5353 { # one after the other
        policy sequential
    }
    forward corp.example 192.0.2.2:54
}
dns://Acme.local:53, "example.org." {
    forward . 192.0.2.3
    forward sub.acme.local 192.0.2.4
    forward elsewhere.net 192.0.2.5
}
"""


def test_what_kubeadm_writes_leaves_it_to_the_machine() -> None:
    assert parse(KUBEADM).servers("www.example.org") == HOST
    assert parse("").servers("www.example.org") == HOST


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        ("www.example.net", (("192.0.2.1", 53), ("2001:db8::1", 5353))),
        ("corp.example", (("192.0.2.2", 54),)),
        ("a.Corp.Example.", (("192.0.2.2", 54),)),
        ("notcorp.example", (("192.0.2.1", 53), ("2001:db8::1", 5353))),
        ("acme.local", (("192.0.2.3", 53),)),
        ("a.b.acme.local", (("192.0.2.3", 53),)),
        ("x.sub.acme.local", (("192.0.2.4", 53),)),
        ("example.org", (("192.0.2.3", 53),)),
        # Not a name of the block that says so.
        ("elsewhere.net", (("192.0.2.1", 53), ("2001:db8::1", 5353))),
    ],
)
def test_the_longest_zone_counts(name: str, servers: tuple[tuple[str, int], ...]) -> None:
    assert parse(STUBS).servers(name) == servers


def test_what_is_no_address_is_told_and_left_out() -> None:
    found = parse(".:53 {\n forward . tls://9.9.9.9 192.0.2.1 dns.example\n}\na. {\n forward . 1.2.3.4:99999\n}")

    assert found.servers("x") == (("192.0.2.1", 53),)
    assert found.servers("b.a") == (("192.0.2.1", 53),)
    assert found.unread == ("tls://9.9.9.9", "dns.example", "1.2.3.4:99999")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a {", "a brace is not closed"),
        ("}", "a brace is closed that was not opened"),
        ("{\n}", "a server block without a zone"),
        ("a {\n forward .\n}", "forward: a zone and servers are missing"),
        ("x" * 300_000, "a Corefile of more than 262144 characters"),
    ],
)
def test_what_is_no_corefile_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        parse(text)


@given(st.text(alphabet='a.:{}\n #"/1', max_size=100), st.text(alphabet="a.A", max_size=20))
def test_any_text_is_read_or_refused(text: str, name: str) -> None:
    try:
        found = parse(text)
    except ValueError as error:
        why = str(error)
        assert why
        return
    assert isinstance(found.servers(name), tuple)
