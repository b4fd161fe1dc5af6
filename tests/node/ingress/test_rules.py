"""What Ingresses mean, and that nothing in them can become more than a word in HAProxy's files. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.meta import Key, Obj
from navarch.kinds.networking.ingress_classes import CONTROLLER, is_ours
from navarch.node.ingress.backends import Address, Backend, NoBackend, addresses, changes, fill, port_of
from navarch.node.ingress.certificates import Pem
from navarch.node.ingress.rendering import Listening, render
from navarch.node.ingress.rules import Target, read
from navarch.node.proxy.base import PortName

STAND_IN = Pem("stand-in", b"PEM")
WEB = Target("default", "web", "80")


def to(service: str = "web", port: int | str = 80) -> Obj:
    return {"service": {"name": service, "port": {"name" if isinstance(port, str) else "number": port}}}


def rule(host: str, *paths: tuple[str, str, str]) -> Obj:
    listed = [{"path": path, "pathType": kind, "backend": to(service)} for path, kind, service in paths]
    return {"host": host, "http": {"paths": listed}}


def ingress(*listed: Obj, name: str = "site", created: str = "2030-01-01T00:00:00Z", **spec: Any) -> Obj:
    metadata = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"rules": list(listed), **spec}}


def test_an_ingress_is_ours_by_its_class_or_by_the_old_annotation() -> None:
    classes = [{"metadata": {"name": "navarch"}, "spec": {"controller": CONTROLLER}},
               {"metadata": {"name": "edge"}, "spec": {"controller": CONTROLLER}},
               {"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}}]  # fmt: skip
    old = {
        **ingress(),
        "metadata": {**ingress()["metadata"], "annotations": {"kubernetes.io/ingress.class": "navarch"}},
    }

    assert [is_ours(ingress(ingressClassName=name), classes) for name in ("navarch", "edge", "nginx", "none")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert is_ours(old, classes)
    assert not is_ours(ingress(), classes)


def test_paths_are_taken_by_their_types() -> None:
    paths = (("/one", "Exact", "web"), ("/two", "Prefix", "web"), ("/", "Prefix", "api"),
             ("/three/*", "ImplementationSpecific", "web"), ("/four/", "Prefix", "api"))  # fmt: skip

    made = read([ingress(rule("a.com", *paths))])

    assert set(made.exact) == {("a.com", "/one")}
    assert set(made.prefix) == {("a.com", path) for path in ("/", "/two/", "/three/", "/four/")}
    assert made.prefix["a.com", "/"] == Target("default", "api", "80")
    assert made.problems == []


def test_of_two_ingresses_with_one_path_the_older_counts() -> None:
    old = ingress(rule("a.com", ("/", "Prefix", "web")), name="old")
    new = ingress(rule("a.com", ("/", "Prefix", "api")), name="new", created="2031-01-01T00:00:00Z")

    made = read([new, old])

    assert made.prefix == {("a.com", "/"): WEB}
    assert [(p.ingress, p.reason) for p in made.problems] == [(Key("default", "new"), "Conflict")]


def test_the_default_backend_has_what_no_rule_has() -> None:
    only = read([ingress(defaultBackend=to())])
    beside = read([ingress(rule("a.com", ("/api", "Prefix", "api")), defaultBackend=to())])
    taken = read([ingress(rule("a.com", ("/", "Prefix", "api")), defaultBackend=to())])

    assert only.prefix == {("", "/"): WEB}
    assert beside.prefix["a.com", "/"] == WEB
    assert taken.prefix["a.com", "/"].service == "api"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (ingress(rule("a.com\n    server evil 1.2.3.4:1", ("/", "Prefix", "web"))), "InvalidHost"),
        (ingress(rule("A.com", ("/", "Prefix", "web"))), "InvalidHost"),
        (ingress(rule("a.com", ("/x web2\n/y", "ImplementationSpecific", "web"))), "InvalidPath"),
        (ingress(rule("a.com", ("/x%0aevil", "Exact", "web"))), "InvalidPath"),
        (ingress(rule("a.com", ("/x%20y", "Prefix", "web"))), "InvalidPath"),
        (ingress(rule("a.com", ("/", "Prefix", "web\n    server evil 1.2.3.4:1"))), "InvalidBackend"),
        (ingress(defaultBackend={"resource": {"kind": "Bucket", "name": "b"}}), "UnsupportedBackend"),
    ],
)
def test_what_cannot_be_a_word_is_refused(made: Obj, reason: str) -> None:
    found = read([made])

    assert [problem.reason for problem in found.problems] == [reason]
    assert not found.exact
    assert not found.prefix


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.sampled_from(["Exact", "Prefix", "Other"]))
def test_nothing_that_an_ingress_says_adds_a_line_or_a_word(host: str, path: str, service: str, kind: str) -> None:
    tls = [{"hosts": [host], "secretName": path}]
    routes = read([ingress(rule(host, ("/" + path, kind, service), ("/", "Prefix", "web")), tls=tls)])
    targets = {*routes.exact.values(), *routes.prefix.values()}
    found = [Backend(target, "http", (None,)) for target in targets]
    shown = [(Pem("one", b"PEM"), entry.hosts) for entry in routes.tls]

    rendered = render(Listening(("127.0.0.1",)), routes, found, shown, STAND_IN)

    files = {name.rpartition("/")[2]: data.decode() for name, data in rendered.files.items()}
    plain = render(Listening(("127.0.0.1",)), read([]), [], [], STAND_IN).files["haproxy.cfg"].decode()
    # Beside its own lines the configuration has three for each backend.
    assert len(files["haproxy.cfg"].splitlines()) == len(plain.splitlines()) + 4 * len(found)
    for name, routed in (("exact.map", routes.exact), ("prefix.map", routes.prefix)):
        lines = files[name].split("\n")[:-1]
        assert len(lines) == len(routed)
        assert all(len(line.split()) == 2 and not line.startswith("#") for line in lines)
    assert all(len(line.split()) == 1 + len(hosts) for line, (_, hosts) in
               zip(files["certs.list"].splitlines()[1:], shown, strict=True))  # fmt: skip


# Backends


def service(*ports: Obj, **spec: Any) -> Obj:
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": list(ports), **spec}}


def test_ports_are_found_by_number_and_by_name() -> None:
    made = service({"port": 80, "name": "http"}, {"port": 443, "name": "tls", "appProtocol": "https"})

    assert port_of(made, WEB) == (PortName("http", "TCP"), "http")
    assert port_of(made, Target("default", "web", "tls")) == (PortName("tls", "TCP"), "https")
    for wrong, problem in ((None, "does not exist"), (service({"port": 81}), "has no port 80"),
                           (service(type="ExternalName"), "out of the cluster")):  # fmt: skip
        with pytest.raises(NoBackend, match=problem):
            port_of(wrong, WEB)


def slice_of(*endpoints: tuple[str, bool], address_type: str = "IPv4") -> Obj:
    listed = [{"addresses": [ip], "conditions": {"ready": ready, "serving": True, "terminating": not ready}}
              for ip, ready in endpoints]  # fmt: skip
    return {"addressType": address_type, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": listed}


def test_ready_endpoints_count_and_where_there_are_none_those_that_still_serve() -> None:
    port = PortName("", "TCP")

    assert addresses([slice_of(("10.0.0.1", True), ("10.0.0.2", False))], port) == [Address("10.0.0.1", 8080)]
    assert addresses([slice_of(("10.0.0.2", False))], port) == [Address("10.0.0.2", 8080)]
    assert addresses([slice_of(("fd00::1", True), address_type="IPv6")], port) == [Address("fd00::1", 8080)]
    assert addresses([slice_of(("10.0.0.1 check\n", True))], port) == []


def test_an_endpoint_keeps_its_slot_and_slots_double() -> None:
    one, two, three = (Address(f"10.0.0.{n}", 80) for n in (1, 2, 3))

    first = fill((), [one, two])
    assert first == (one, two, None, None)
    assert fill(first, [two, three]) == (three, two, None, None)
    assert len(fill(first, [Address("10.0.1.1", port) for port in range(5)])) == 8


def test_changes_of_endpoints_are_commands_and_other_changes_are_not() -> None:
    one, two = Address("10.0.0.1", 80), Address("10.0.0.2", 81)
    before = [Backend(WEB, "http", (one, None))]

    assert changes(before, [Backend(WEB, "http", (one, two))]) == [
        "set server default_web_80/s1 addr 10.0.0.2 port 81",
        "set server default_web_80/s1 state ready",
    ]
    assert changes(before, [Backend(WEB, "http", (None, None))]) == ["set server default_web_80/s0 state maint"]
    assert changes(before, before) == []
    assert changes(before, [Backend(WEB, "h2", (one, None))]) is None
    assert changes(before, []) is None
