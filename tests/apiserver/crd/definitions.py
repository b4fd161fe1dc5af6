"""CustomResourceDefinitions as their authors write them, and how to wait for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from navarch.api.meta import Obj
from tests.apiserver.conftest import Api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GADGETS = "/apis/example.com/v1/namespaces/default/gadgets"
NAME = "gadgets.example.com"


def schema(**fields: Obj) -> Obj:
    """A schema whose `spec` has these fields."""
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}


def version(name: str = "v1", *, stored: bool = True, **more: Any) -> Obj:
    size: Obj = {"size": {"type": "integer"}}
    return {
        "name": name,
        "served": True,
        "storage": stored,
        "schema": {"openAPIV3Schema": schema(**size)},
        **more,
    }


def definition(*versions: Obj, plural: str = "gadgets", kind: str = "Gadget", **names: Any) -> Obj:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, **names},
            "versions": list(versions) or [version()],
        },
    }


def with_schema(**fields: Obj) -> Obj:
    return definition(version(schema={"openAPIV3Schema": schema(**fields)}))


def gadget(name: str = "a", version: str = "v1", **spec: Any) -> Obj:
    return {"apiVersion": f"example.com/{version}", "kind": "Gadget", "metadata": {"name": name}, "spec": spec}


async def eventually(question: Callable[[], Awaitable[Any]], within_s: float = 20) -> Any:
    """The first answer that is not false."""
    async with asyncio.timeout(within_s):
        while not (answer := await question()):
            await asyncio.sleep(0.01)
        return answer


def conditions(crd: Obj) -> dict[str, tuple[str, str]]:
    found = crd["status"].get("conditions") or []
    return {each["type"]: (each["status"], each["reason"]) for each in found if each.get("type")}


async def has_condition(api: Api, type_: str, status: str, name: str = NAME) -> Obj:
    """The definition, once it has that condition."""

    async def asked() -> Obj | None:
        crd = await api.ok("GET", f"{CRDS}/{name}")
        return crd if conditions(crd).get(type_, ("", ""))[0] == status else None

    return await eventually(asked)


async def established(api: Api, crd: Obj) -> Obj:
    """Create it, and wait until its author may use it."""
    await api.ok("POST", CRDS, crd)
    return await has_condition(api, "Established", "True", crd["metadata"]["name"])


async def answers(api: Api, method: str, path: str, code: int) -> Any:
    """The answer, once it has that status."""

    async def asked() -> Any:
        status, body = await api(method, path)
        return (body or {"": status}) if status == code else None

    return await eventually(asked)


async def replaced(api: Api, crd: Obj) -> Obj:
    """Replace the definition; what it says is served soon after."""
    path = f"{CRDS}/{crd['metadata']['name']}"
    stored = await api.ok("GET", path)
    return await api.ok("PUT", path, {**crd, "metadata": stored["metadata"]})
