"""The one write pipeline: what plugins see, in which order, and that nothing they say replaces what the server says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.chain import Chain
from navarch.apiserver.auth.base import Decision, EveryoneIsAdmin, RequestAttributes
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.kinds import resources as r
from navarch.kinds.base import Kind
from navarch.store.base import Put
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.apiserver.conftest import DEPLOYMENTS, PODS, Api, deployment, pod

FORGED = "11111111-2222-4333-8444-555555555555"
STATUS = {"deployments": {"replicas": 7}, "pods": {"phase": "Succeeded"}, "namespaces": {"phase": "Terminating"}}


class Everything(Plugin):
    subresources = None
    operations = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})


class Hostile(Everything):
    """Says of every object what only the server may say."""

    name = "Hostile"

    async def mutate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or attributes.subresource not in ("", "status", "resize", "ephemeralcontainers", "scale"):
            return
        if attributes.subresource != "status":
            obj["status"] = STATUS.get(attributes.kind.resource.plural, {"x": "y"})
        else:
            # In place, in what it was shown of the stored object, too.
            for shown in (obj, attributes.old):
                assert shown is not None
                shown["spec"]["forged"] = True
                shown["spec"].get("template", {}).pop("spec", None)
        metadata = obj.setdefault("metadata", {})
        metadata["generation"] = 99
        metadata["creationTimestamp"] = "1999-01-01T00:00:00Z"
        metadata["deletionTimestamp"] = "1999-01-01T00:00:00Z"
        metadata["deletionGracePeriodSeconds"] = 0
        metadata["managedFields"] = [{"manager": 3}]
        metadata["namespace"] = "kube-system" if "namespace" in metadata else metadata.get("namespace")
        metadata["selfLink"] = "/here"
        metadata["resourceVersion"] = "5"
        if attributes.operation == "CREATE":
            metadata["uid"] = FORGED


class Recorder(Everything):
    """What a plugin saw."""

    name = "Recorder"

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, str]] = []
        self.shown: list[tuple[Obj | None, Obj | None, Obj]] = []

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        return True

    async def mutate(self, attributes: Attributes) -> None:
        self._note("mutate", attributes)

    async def validate(self, attributes: Attributes) -> None:
        self._note("validate", attributes)

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        self._note("committed", attributes)

    async def rolled_back(self, attributes: Attributes) -> None:
        self._note("rolled back", attributes)

    def _note(self, hook: str, attributes: Attributes) -> None:
        what = attributes.kind.resource.plural + (f"/{attributes.subresource}" if attributes.subresource else "")
        self.seen.append((hook, attributes.operation, what, attributes.name))
        self.shown.append((attributes.obj, attributes.old, attributes.options))

    def take(self) -> list[tuple[str, str, str, str]]:
        seen, self.seen = self.seen, []
        return seen


class Refusing(Everything):
    name = "Refusing"

    def __init__(self) -> None:
        self.refuses = False

    async def validate(self, attributes: Attributes) -> None:
        if self.refuses:
            raise attributes.refused("no")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def refusing() -> Refusing:
    return Refusing()


async def served(*plugins: Plugin) -> Api:
    server = ApiServer(MemoryStore(), world=RealWorld(1), admission=Chain(plugins))
    await server.start()
    api = Api(server)
    for name in ("default", "kube-system"):
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return api


@pytest.fixture
async def api(recorder: Recorder, refusing: Refusing) -> AsyncIterator[Api]:
    api = await served(recorder, refusing)
    recorder.take()
    yield api
    await api.server.stop()


@pytest.fixture
async def forged() -> AsyncIterator[Api]:
    api = await served(Hostile())
    yield api
    await api.server.stop()


def _is_the_servers(obj: Obj, made: Obj | None = None) -> None:
    metadata = obj["metadata"]
    assert metadata["uid"] != FORGED
    assert metadata["namespace"] == "default"
    assert not metadata["creationTimestamp"].startswith("1999")
    assert "deletionTimestamp" not in metadata
    assert "deletionGracePeriodSeconds" not in metadata
    assert "selfLink" not in metadata
    assert metadata["generation"] < 10
    assert all(isinstance(entry["manager"], str) for entry in metadata["managedFields"])
    if made is not None:
        assert metadata["uid"] == made["metadata"]["uid"]
        assert metadata["creationTimestamp"] == made["metadata"]["creationTimestamp"]


async def test_no_plugin_says_who_an_object_is_or_how_it_fares(forged: Api) -> None:
    made = await forged.ok("POST", PODS, pod("p"))
    _is_the_servers(made)
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    url = f"{PODS}/p"

    answers: dict[str, Any] = {}
    answers["put"] = (await forged("PUT", url, {**made, "status": {"phase": "Failed"}}))[1]
    answers["merge"] = (await forged.patch(url, {"metadata": {"labels": {"a": "b"}}}))[1]
    answers["json"] = (await forged.patch(url, [{"op": "add", "path": "/metadata/labels/c", "value": "d"}], "json"))[1]
    answers["strategic"] = (await forged.patch(url, {"metadata": {"labels": {"e": "f"}}}, "strategic"))[1]
    applied = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"g": "h"}}}
    answers["apply"] = (await forged.patch(f"{url}?fieldManager=x", applied, "apply"))[1]
    more = [{"name": "debug", "image": "busybox"}]
    answers["ephemeral"] = (await forged.patch(f"{url}/ephemeralcontainers", {"spec": {"ephemeralContainers": more}}))[
        1
    ]
    answers["resize"] = (await forged("PUT", f"{url}/resize", await forged.ok("GET", url)))[1]

    for way, answer in answers.items():
        assert answer["kind"] == "Pod", (way, answer)
        _is_the_servers(answer, made)
        assert answer["status"]["phase"] == "Pending", way


async def test_nor_through_the_status_or_the_scale(forged: Api) -> None:
    made = await forged.ok("POST", DEPLOYMENTS, deployment("d", 1))
    _is_the_servers(made)
    assert "replicas" not in made["status"]

    _, told = await forged.patch(f"{DEPLOYMENTS}/d/status", {"status": {"observedGeneration": 1}})
    _is_the_servers(told, made)
    assert told["status"] == {"observedGeneration": 1}
    assert told["spec"] == made["spec"]
    assert (await forged.ok("GET", f"{DEPLOYMENTS}/d"))["spec"] == made["spec"]
    _, scaled = await forged.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 3}})
    assert (scaled["spec"], scaled["status"]) == ({"replicas": 3}, {"replicas": 0, "selector": "app=d"})
    stored = await forged.ok("GET", f"{DEPLOYMENTS}/d")
    _is_the_servers(stored, made)
    assert stored["metadata"]["generation"] == 2


async def test_a_generated_name_comes_after_mutation_and_before_validation(api: Api, recorder: Recorder) -> None:
    made = pod("")
    made["metadata"] = {"generateName": "p-"}

    name = (await api.ok("POST", PODS, made))["metadata"]["name"]

    assert [(hook, who) for hook, _, _, who in recorder.take()] == [
        ("mutate", ""),
        ("validate", name),
        ("committed", name),
    ]
    mutated, _, _ = recorder.shown[-3]
    assert mutated is not None


async def test_a_plugins_container_gets_its_defaults() -> None:
    class Sidecar(Plugin):
        name = "Sidecar"
        resources = frozenset({("", "pods")})
        operations = frozenset({"CREATE"})

        async def mutate(self, attributes: Attributes) -> None:
            assert attributes.obj is not None
            attributes.obj["spec"]["containers"].append({"name": "side", "image": "proxy"})

    api = await served(Sidecar())
    made = await api.ok("POST", PODS, pod("p"))
    await api.server.stop()

    first, side = made["spec"]["containers"]
    assert side == {**first, "name": "side", "image": "proxy"}
    owned = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"]
    assert list(owned) == ['k:{"name":"c"}'], "what a plugin adds is not the client's"


OPERATIONS: dict[str, tuple[str, str, Any, str, str]] = {
    # what is asked: method, path, body, operation, resource with subresource
    "create": ("POST", PODS, pod("new"), "CREATE", "pods"),
    "update": ("PUT", f"{PODS}/p", pod("p", a="b"), "UPDATE", "pods"),
    "patch": ("PATCH", f"{PODS}/p", {"metadata": {"labels": {"a": "b"}}}, "UPDATE", "pods"),
    "status": ("PATCH", f"{PODS}/p/status", {"status": {"phase": "Running"}}, "UPDATE", "pods/status"),
    "ephemeral containers": (
        "PATCH",
        f"{PODS}/p/ephemeralcontainers",
        {"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}},
        "UPDATE",
        "pods/ephemeralcontainers",
    ),
    "resize": ("PATCH", f"{PODS}/p/resize", {"spec": {}}, "UPDATE", "pods/resize"),
    "binding": (
        "POST",
        f"{PODS}/p/binding",
        {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}},
        "CREATE",
        "pods/binding",
    ),
    "eviction": ("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}}, "CREATE", "pods/eviction"),
    "scale": ("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 2}}, "UPDATE", "deployments/scale"),
    "delete": ("DELETE", f"{PODS}/p", None, "DELETE", "pods"),
    "delete collection": ("DELETE", PODS, None, "DELETE", "pods"),
}


@pytest.mark.parametrize("way", OPERATIONS)
async def test_every_write_is_admitted_as_kubernetes_does_it(api: Api, recorder: Recorder, way: str) -> None:
    await api.ok("POST", PODS, pod("p"))
    await api.ok("POST", DEPLOYMENTS, deployment("d"))
    recorder.take()
    method, path, body, operation, what = OPERATIONS[way]

    content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
    await api.ok(method, path, body, content_type=content_type)

    own = [(hook, op) for hook, op, resource, _ in recorder.take() if resource == what]
    assert own == [("mutate", operation), ("validate", operation), ("committed", operation)]


@pytest.mark.parametrize("way", OPERATIONS)
async def test_a_refused_write_changes_nothing_and_gives_back_what_it_reserved(
    api: Api, recorder: Recorder, refusing: Refusing, way: str
) -> None:
    await api.ok("POST", PODS, pod("p"))
    await api.ok("POST", DEPLOYMENTS, deployment("d"))
    before = [(await api.ok("GET", path))["items"] for path in (PODS, DEPLOYMENTS)]
    recorder.take()
    refusing.refuses = True
    method, path, body, _, what = OPERATIONS[way]

    content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
    status, answer = await api(method, path, body, content_type=content_type)

    assert (status, answer["reason"]) == (403, "Forbidden"), answer
    own = [hook for hook, _, resource, _ in recorder.take() if resource == what]
    assert own == ["mutate", "validate", "rolled back"]
    assert [(await api.ok("GET", path))["items"] for path in (PODS, DEPLOYMENTS)] == before


@pytest.mark.parametrize(
    ("subresource", "kind", "fields"),
    [
        (
            "exec?command=ls&command=-l&container=c&stdout=1",
            "PodExecOptions",
            {"command": ["ls", "-l"], "stdout": True},
        ),
        ("attach?stdin=true&stdout=false", "PodAttachOptions", {"stdin": True}),
        ("portforward?ports=80,81", "PodPortForwardOptions", {"ports": [80, 81]}),
        ("proxy/a/b", "PodProxyOptions", {"path": "/a/b"}),
    ],
)
async def test_a_connection_is_admitted_with_its_options(
    api: Api, recorder: Recorder, refusing: Refusing, subresource: str, kind: str, fields: Obj
) -> None:
    await api.ok("POST", PODS, pod("p", "n1"))
    recorder.take()
    refusing.refuses = True

    status, answer = await api("POST", f"{PODS}/p/{subresource}")

    assert (status, answer["message"]) == (403, 'pods "p" is forbidden: no')
    name = subresource.partition("?")[0].partition("/")[0]
    assert [entry[:3] for entry in recorder.take()] == [
        ("mutate", "CONNECT", f"pods/{name}"),
        ("validate", "CONNECT", f"pods/{name}"),
        ("rolled back", "CONNECT", f"pods/{name}"),
    ]
    obj, old, _ = recorder.shown[-3]
    assert obj is not None
    assert (obj["kind"], old) == (kind, None)
    assert fields.items() <= obj.items()


async def test_options_say_what_kind_of_request_it_was(api: Api, recorder: Recorder) -> None:
    async def kinds(method: str, path: str, body: Any, content_type: str = "application/json") -> set[str]:
        recorder.shown.clear()
        await api.ok(method, path, body, content_type=content_type)
        return {options.get("kind", "") for _, _, options in recorder.shown}

    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    assert await kinds("POST", PODS, pod("p")) == {"CreateOptions"}
    assert await kinds("PUT", f"{PODS}/p", pod("p", a="b")) == {"UpdateOptions"}
    assert await kinds("PATCH", f"{PODS}/p", {"metadata": {"labels": {"c": "d"}}}, "application/merge-patch+json") == {
        "PatchOptions"
    }
    assert await kinds("PUT", f"{leases}/l", {"metadata": {"name": "l"}}) == {"CreateOptions"}
    assert await kinds("DELETE", f"{PODS}/p", None) == {"DeleteOptions"}


async def test_a_lost_race_is_admitted_again_and_settled_once_each(api: Api, recorder: Recorder) -> None:
    await api.ok("POST", PODS, pod("p"))
    recorder.take()
    store, lost = api.server.store, []
    commit = store.commit

    async def racing(ops: Any) -> int:
        if not lost:
            lost.append(True)
            cache = api.server.core.caches.of(r.PODS)
            cached = cache.get("default", "p")
            assert cached is not None
            await commit([Put(cached.key, cache.codec.encode(cached.obj() | {"x": 1}), cached.revision)])
        return await commit(ops)

    store.commit = racing  # type: ignore[method-assign]
    await api.patch(f"{PODS}/p", {"metadata": {"labels": {"a": "b"}}})

    assert [hook for hook, *_ in recorder.take()] == [
        "mutate", "validate", "rolled back",
        "mutate", "validate", "committed",
    ]  # fmt: skip


async def test_a_dry_run_is_admitted_and_settles_nothing(api: Api, recorder: Recorder) -> None:
    await api.ok("POST", f"{PODS}?dryRun=All", pod("p"))

    assert [hook for hook, *_ in recorder.take()] == ["mutate", "validate"]


async def test_who_may_only_patch_does_not_create_by_an_apply() -> None:
    class NoCreation(EveryoneIsAdmin):
        def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
            return Decision(attributes.verb != "create" or attributes.resource == "namespaces")

    api = await served()
    api.server.use(authorizer=NoCreation())
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    answers = [
        await api.patch("/api/v1/namespaces/default/configmaps/c?fieldManager=x", applied, "apply"),
        await api("PUT", f"{leases}/l", {"metadata": {"name": "l"}}),
    ]
    await api.server.stop()

    assert [status for status, _ in answers] == [403, 403]
    assert 'cannot create resource "configmaps" in API group ""' in answers[0][1]["message"]
