"""Extenders: programs of others that are asked over HTTP which nodes can take a pod, how good these are, whose place
may be taken, or to bind it; Kubernetes' `extender/v1`.

In: nodes that all filters would take.  Out: those that every extender would take too, and what they add to scores. They
are asked before the decision, for that never waits; what they said is kept with the pod for this attempt.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of
from navarch.records import frozen, mutable
from navarch.scheduler.changes import Change
from navarch.scheduler.columns import BoolArray, FloatArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Failure, Plugin, Refusal, Scope, Victims
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

# An extender gives up to 10 points, a plugin up to 100.
_POINTS: Final = 10


class ExtenderError(Exception):
    """An extender could not be asked, or answered with an error."""


@frozen
class ExtenderConfig:
    """One extender. A verb that is empty is not its business; without `managed` resources it is asked about every pod,
    with some about those that request one. `keeps_nodes`: it knows nodes and pods by name."""

    url: str
    filter_verb: str = ""
    prioritize_verb: str = ""
    preempt_verb: str = ""
    bind_verb: str = ""
    weight: int = 1
    timeout_s: float = 5.0
    keeps_nodes: bool = False
    is_ignorable: bool = False
    managed: frozenset[str] = frozenset()
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


@mutable
class _Said:
    """What extenders said; a node that is nowhere in it they were not asked about."""

    good: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    unresolvable: set[str] = field(default_factory=set)
    scores: dict[str, float] = field(default_factory=dict)


class Extenders(Plugin):
    """All extenders of a scheduler, in their order."""

    name = "Extender"
    scope = Scope.SEARCH
    # Kubernetes cannot know either what makes an extender change its mind.
    changes = frozenset(Change)

    def __init__(self, configs: Sequence[ExtenderConfig]) -> None:
        self._extenders = [Extender(config) for config in configs]

    async def close(self) -> None:
        for extender in self._extenders:
            await extender.close()

    # Nodes.

    def prepares(self, pod: PodInfo, environment: Environment) -> bool:
        return any(extender.judges and extender.minds(pod) for extender in self._extenders)

    async def prepare(self, pod: PodInfo, nodes: NodeTable, enough: int) -> None:
        said = pod.extenders = _Said()
        left = {nodes.name(position): nodes.node(position) for position in range(len(nodes))}
        asked = list(left)
        minding = [extender for extender in self._extenders if extender.minds(pod)]
        for extender in minding:
            if not left or not extender.config.filter_verb:
                continue
            try:
                left = await extender.filter(pod, left, said)
            except ExtenderError as error:
                if not extender.config.is_ignorable:
                    raise Failure(str(error)) from None
                log.info("extender %s is left out: %s", extender.config.url, error)
        said.good = set(left)
        for name in asked:
            if name not in said.good:
                said.refused.setdefault(name, "")
        if len(left) > 1:
            scorers = [extender for extender in minding if extender.config.prioritize_verb]
            for scores in await asyncio.gather(*(extender.prioritize(pod, left) for extender in scorers)):
                for name, score in scores.items():
                    said.scores[name] = said.scores.get(name, 0.0) + score

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        said: _Said | None = pod.extenders
        if said is None:
            return np.ones(len(nodes), np.bool_)
        return np.array([nodes.name(position) not in said.refused for position in range(len(nodes))], np.bool_)

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        said: _Said = pod.extenders
        names = [nodes.name(position) for position in range(len(nodes))]
        reasons = Counter(reason for name in names if (reason := said.refused.get(name)))
        curable = [bool(said.refused.get(name)) and name not in said.unresolvable for name in names]
        return Refusal(dict(reasons), np.array(curable, np.bool_))

    def depends_on_pods(self, pod: PodInfo, nodes: NodeTable) -> bool:
        # What was said stays said, whoever comes or goes.
        return False

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return pod.extenders is not None and bool(pod.extenders.scores)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        scores = pod.extenders.scores
        return np.array([scores.get(nodes.name(position), 0.0) for position in range(len(nodes))])

    # Victims.

    async def sift(self, pod: PodInfo, victims: Mapping[str, Victims]) -> Mapping[str, Victims]:
        for extender in self._extenders:
            if not victims or not extender.config.preempt_verb or not extender.minds(pod):
                continue
            try:
                victims = await extender.preempt(pod, victims)
            except ExtenderError as error:
                if not extender.config.is_ignorable:
                    raise Failure(f"preemption: {error}") from None
                log.info("extender %s is left out: %s", extender.config.url, error)
        return victims

    # Binding.

    def binds_instead(self, pod: PodInfo) -> bool:
        return self._binder(pod) is not None

    async def bind(self, pod: PodInfo, node_name: str) -> None:
        binder = self._binder(pod)
        assert binder is not None
        try:
            await binder.bind(pod, node_name)
        except ExtenderError as error:
            raise StatusError(500, "InternalError", str(error)) from None

    def _binder(self, pod: PodInfo) -> Extender | None:
        return next((one for one in self._extenders if one.config.bind_verb and one.minds(pod)), None)


class Extender:
    """One extender, and the connections to it."""

    def __init__(self, config: ExtenderConfig) -> None:
        # Here, where there is one: few schedulers have any, and it is a tenth of what their process would load.
        import aiohttp

        self._client = aiohttp
        self.config = config
        self._session: aiohttp.ClientSession | None = None

    @property
    def judges(self) -> bool:
        return bool(self.config.filter_verb or self.config.prioritize_verb)

    def minds(self, pod: PodInfo) -> bool:
        """Whether the pod is its business."""
        managed = self.config.managed
        return not managed or not managed.isdisjoint(pod.traits.asked_for)

    async def filter(self, pod: PodInfo, nodes: Mapping[str, Obj], said: _Said) -> dict[str, Obj]:
        """Those of the nodes that it would take."""
        answer = await self._ask(self.config.filter_verb, self._about(pod, nodes))
        if error := answer.get("error"):
            raise ExtenderError(str(error))
        unresolvable = answer.get("failedandunresolvablenodes") or {}
        said.refused |= {**(answer.get("failednodes") or {}), **unresolvable}
        said.unresolvable |= set(unresolvable)
        if self.config.keeps_nodes and answer.get("nodenames") is not None:
            names = list(answer["nodenames"])
            for name in names:
                if name not in nodes:
                    where = f'extender "{self.config.url}" claims a filtered node "{name}"'
                    raise ExtenderError(f"{where} which is not found in the input node list")
        else:
            names = [name_of(node) for node in _folded(answer.get("nodes") or {}).get("items") or ()]
        return {name: nodes[name] for name in names if name in nodes}

    async def prioritize(self, pod: PodInfo, nodes: Mapping[str, Obj]) -> dict[str, float]:
        """What it adds to the nodes' scores: nothing where it fails, for scores are no reason to fail."""
        try:
            answer = await self._ask(self.config.prioritize_verb, self._about(pod, nodes))
        except ExtenderError as error:
            log.info("extender %s gives no scores: %s", self.config.url, error)
            return {}
        listed = [_folded(one) for one in answer.get("", ())]
        weight = self.config.weight * 100 / _POINTS
        return {str(one.get("host")): float(one.get("score") or 0) * weight for one in listed}

    async def preempt(self, pod: PodInfo, victims: Mapping[str, Victims]) -> dict[str, Victims]:
        """The nodes that stay, with the pods that have to go."""
        form, shown = ("NodeNameToMetaVictims", _meta) if self.config.keeps_nodes else ("NodeNameToVictims", _full)
        other = "NodeNameToVictims" if self.config.keeps_nodes else "NodeNameToMetaVictims"
        question = {
            "Pod": pod.obj,
            other: None,
            form: {
                node: {"Pods": [shown(one) for one in found.pods], "NumPDBViolations": found.violations}
                for node, found in victims.items()
            },
        }
        answer = await self._ask(self.config.preempt_verb, question)
        return dict(self._victims(_folded_values(answer.get("nodenametometavictims") or {}), victims))

    def _victims(self, answer: Mapping[str, Obj], asked: Mapping[str, Victims]) -> list[tuple[str, Victims]]:
        result = []
        for node, found in answer.items():
            there = asked[node].there if node in asked else {}
            uids = [str(_folded(one).get("uid")) for one in found.get("pods") or ()]
            for uid in uids:
                if uid not in there:
                    claim = f"extender: {self.config.url} claims to preempt pod (UID: {uid}) on node: {node}"
                    raise ExtenderError(f"{claim}, but the pod is not found on that node")
            if not uids:
                if self.config.is_ignorable:
                    continue
                raise ExtenderError(f'expected at least one victim pod on node "{node}"')
            pods = [there[uid] for uid in uids]
            result.append((node, Victims(pods, int(found.get("numpdbviolations") or 0), there)))
        return result

    async def bind(self, pod: PodInfo, node_name: str) -> None:
        names = {"PodName": pod.key.name, "PodNamespace": pod.key.namespace, "PodUID": pod.uid, "Node": node_name}
        answer = await self._ask(self.config.bind_verb, names)
        if error := answer.get("error"):
            raise ExtenderError(str(error))

    def _about(self, pod: PodInfo, nodes: Mapping[str, Obj]) -> Obj:
        if self.config.keeps_nodes:
            return {"Pod": pod.obj, "Nodes": None, "NodeNames": list(nodes)}
        return {"Pod": pod.obj, "Nodes": {"metadata": {}, "items": list(nodes.values())}, "NodeNames": None}

    async def _ask(self, verb: str, question: Obj) -> Obj:
        """The answer with its fields' names in small letters, for Go reads them whatever their case; a list is under
        the empty name."""
        url = f"{self.config.url.rstrip('/')}/{verb}"
        if self._session is None:
            timeout = self._client.ClientTimeout(total=self.config.timeout_s)
            self._session = self._client.ClientSession(timeout=timeout)
        try:
            headers = {"Content-Type": "application/json"}
            async with self._session.post(
                url,
                data=orjson.dumps(question),
                headers=headers,
                ssl=self.config.tls or True,
                server_hostname=self.config.server_name,
            ) as response:
                if response.status != 200:
                    raise ExtenderError(f"failed {verb} with extender at URL {url}, code {response.status}")
                answer = orjson.loads(await response.read())
        except (self._client.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ExtenderError(f'Post "{url}": {str(error) or "context deadline exceeded"}') from None
        if isinstance(answer, list):
            return {"": answer}
        return _folded(answer)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _folded(value: Any) -> Obj:
    return {str(name).lower(): inner for name, inner in value.items()} if isinstance(value, dict) else {}


def _folded_values(value: Mapping[str, Any]) -> dict[str, Obj]:
    return {name: _folded(inner) for name, inner in value.items()}


def _meta(pod: PodInfo) -> Obj:
    return {"UID": pod.uid}


def _full(pod: PodInfo) -> Obj:
    return pod.obj


def tls_of(stated: Obj, *, https: bool) -> ssl.SSLContext | None:
    """As an extender's `tlsConfig` says; without an authority of its own an HTTPS extender is believed, as Kubernetes
    has it.  Raises OSError, ValueError."""
    if not stated and not https:
        return None
    context = ssl.create_default_context()
    authority = stated.get("caFile")
    data = stated.get("caData")
    if authority or data:
        context.load_verify_locations(authority, cadata=base64.b64decode(data).decode() if data else None)
    if stated.get("insecure") or not (authority or data):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_own(context, stated)
    return context


def _load_own(context: ssl.SSLContext, stated: Obj) -> None:
    """The scheduler's certificate and key; Python's TLS reads them from files alone."""
    paths: list[str | None] = [stated.get("certFile"), stated.get("keyFile")]
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(("certData", "keyData")):
            if stated.get(name):
                path = Path(folder, name)
                path.write_bytes(base64.b64decode(stated[name]))
                paths[index] = str(path)
        if paths[0]:
            context.load_cert_chain(paths[0], paths[1])
