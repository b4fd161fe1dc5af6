"""Priority and fairness: each request runs in a seat of its priority level, or waits for one, or is turned away.

In: requests as they come in, and the stored FlowSchemas and PriorityLevelConfigurations.  Out: a `Flow` for a request,
with the level that it enters and leaves. What a request's flow is, is worked out once for all requests of the same
user, verb, resource and namespace. Requests that last by their nature (exec, attach, proxies, logs) are none of its
business; a watch has its seat until it has begun. Unlike in Kubernetes a write keeps no seat for the watchers that are
told of it: here they are told before it is answered.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.caches import Caches
from navarch.apiserver.changes import Change
from navarch.apiserver.flowcontrol.levels import Counts, Level
from navarch.apiserver.flowcontrol.matching import CATCH_ALL, EXEMPT, Schema, first, schemas_of
from navarch.apiserver.flowcontrol.seats import (
    ADJUST_EVERY_S,
    LevelConfig,
    Limits,
    config_of,
    current_limits,
    limits_of,
)
from navarch.apiserver.headers import Headers
from navarch.apiserver.metrics import ServedLabel
from navarch.apiserver.user import User
from navarch.apiserver.watchcache import WatchCache
from navarch.client.transport import Request
from navarch.kinds.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS
from navarch.numbers import is_digits
from navarch.world import World

# Kubernetes' --max-requests-inflight and --max-mutating-requests-inflight.
READING: Final = 400
WRITING: Final = 200
SCHEMA_HEADER: Final = "X-Kubernetes-Pf-Flowschema-Uid"
LEVEL_HEADER: Final = "X-Kubernetes-Pf-Prioritylevel-Uid"
LONG: Final = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_REMEMBERED: Final = 4096
LONGEST_NAMESPACE: Final = 253
# Whoever is impersonated is somebody else with each request, and may have any name.
_LONGEST_USER: Final = 4 << 10
_OBJECTS_PER_SEAT: Final = 100
_MOST_SEATS: Final = 10
# No request takes more than this share of its level.
_MOST_OF_A_LEVEL: Final = 0.15
_DEFAULTS: Final = (LevelConfig(EXEMPT, "", True, 0), LevelConfig(CATCH_ALL, "", False, 5))


class Flow:
    """Requests of one flow: the level that they run at (`Level.begin` and `wait`, with `counts`; `leave` at the end),
    and what their answers say of it."""

    __slots__ = ("counts", "headers", "level", "name", "schema", "usual")

    def __init__(self, schema: Schema, level: Level, distinguisher: str, counts: Counts) -> None:
        self.schema = schema
        self.level = level
        uids = {SCHEMA_HEADER: schema.uid, LEVEL_HEADER: level.config.uid}
        self.headers: Mapping[str, str] = {name: uid for name, uid in uids.items() if uid}
        # The same, for answers that say no more.
        self.usual = Headers(self.headers)
        self.name = f"{schema.name}/{distinguisher}"
        self.counts = counts


class FlowControl:
    """One server's. `start` when its caches are filled."""

    def __init__(self, caches: Caches, world: World, seats: int = READING + WRITING) -> None:
        self._caches = caches
        self._world = world
        self._seats = seats
        self._schemas: list[Schema] = schemas_of(())
        self._limits: dict[str, Limits] = {}
        self._levels: dict[str, Level] = {}
        self._counts: dict[tuple[str, str], Counts] = {}
        # With the user, so that nobody else can have their number.
        self._flows: dict[tuple[int, str, ServedLabel, str], tuple[User, Flow]] = {}
        self._is_loading = False
        self._task: asyncio.Task[None] | None = None
        self._configure(())

    def start(self) -> None:
        """Follow what is stored, until `stop`."""
        for resource in (FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS):
            self._caches.of(resource).listeners.append(self._changed)
        self._load()
        self._task = asyncio.create_task(self._adjust_for_ever(), name="seats of priority levels")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # Requests

    def flow(self, user: User, verb: str, label: ServedLabel | None, attributes: RequestAttributes) -> Flow | None:
        """The flow of a request; None for one that lasts. `label` names what is asked for, if it is served."""
        if attributes.subresource in LONG:
            return None
        if label is None or len(attributes.namespace) > LONGEST_NAMESPACE:
            return self._flow_of(user, attributes)
        key = (id(user), verb, label, attributes.namespace)
        known = self._flows.get(key)
        if known is None:
            known = user, self._flow_of(user, attributes)
            if user.length() <= _LONGEST_USER:
                if len(self._flows) >= _REMEMBERED:
                    self._flows.clear()
                self._flows[key] = known
        return known[1]

    def _flow_of(self, user: User, attributes: RequestAttributes) -> Flow:
        schema = first(self._schemas, user, attributes)
        level = self._levels.get(schema.level)
        if level is None:
            schema = next(each for each in self._schemas if each.name == CATCH_ALL)
            level = self._levels[CATCH_ALL]
        counts = self._counts.setdefault((schema.name, level.config.name), Counts())
        return Flow(schema, level, schema.flow(user, attributes), counts)

    def seats_of_list(self, flow: Flow, request: Request, name: str, cache: WatchCache | None) -> int:
        """How many seats a list takes: one for every hundred objects that it goes through."""
        if name or cache is None or flow.level.config.exempt:
            return 1
        count = len(cache)
        limit = request.arg("limit")
        if is_digits(limit) and len(limit) < 10 and int(limit):
            count = min(count, int(limit))
        if count <= _OBJECTS_PER_SEAT:
            return 1
        nominal = self._limits[flow.level.config.name].nominal
        most = min(_MOST_SEATS, max(1, math.ceil(nominal * _MOST_OF_A_LEVEL)))
        return min(math.ceil(count / _OBJECTS_PER_SEAT), most)

    # What is stored

    def _changed(self, change: Change) -> None:
        # Many at once are one change.
        if not self._is_loading:
            self._is_loading = True
            asyncio.get_running_loop().call_soon(self._load)

    def _load(self) -> None:
        self._is_loading = False
        self._schemas = schemas_of(cached.obj() for cached in self._caches.of(FLOW_SCHEMAS).items())
        self._configure([cached.obj() for cached in self._caches.of(PRIORITY_LEVEL_CONFIGURATIONS).items()])

    def _configure(self, stored: Iterable[Obj]) -> None:
        configs = {config.name: config for config in _DEFAULTS}
        configs.update((config.name, config) for config in map(config_of, stored))
        self._limits = limits_of(list(configs.values()), self._seats)
        for name, config in configs.items():
            level = self._levels.get(name)
            if level is None:
                self._levels[name] = Level(config, self._limits[name].nominal, self._world.monotonic)
            else:
                level.configure(config)
        for name in list(self._levels):
            if name not in configs:
                # Who waits there goes on; nobody comes to it any more.
                self._levels.pop(name).set_limit(self._seats)
        self._flows.clear()
        names = {schema.name for schema in self._schemas}
        self._counts = {
            key: counts for key, counts in self._counts.items() if key[0] in names and key[1] in self._levels
        }
        self._adjust({name: (0, level.demand.smoothed) for name, level in self._levels.items()})

    # Lending and borrowing

    async def _adjust_for_ever(self) -> None:
        while True:
            await asyncio.sleep(ADJUST_EVERY_S)
            now_s = self._world.monotonic()
            demands = {}
            for name, level in self._levels.items():
                highest = level.demand.turn(now_s)
                demands[name] = (highest, level.demand.smoothed)
            self._adjust(demands)

    def _adjust(self, demands: Mapping[str, tuple[int, float]]) -> None:
        exempt = {name for name, level in self._levels.items() if level.config.exempt}
        taken = sum(max(self._limits[name].least, demands[name][0]) for name in exempt)
        limited = {name: limits for name, limits in self._limits.items() if name not in exempt}
        for name, limit in current_limits(limited, demands, max(0, self._seats - taken)).items():
            self._levels[name].set_limit(max(1, limit))

    # Numbers

    def numbers(self) -> Iterator[str]:
        """Metrics in Prometheus' text format, under Kubernetes' names."""
        levels = sorted(self._levels.items())
        for metric, (what, of) in _GAUGES.items():
            yield from _family(metric, "gauge", what)
            for name, level in levels:
                yield f'{_PREFIX}{metric}{{priority_level="{name}"}} {of(level):g}'
        yield from _family("nominal_limit_seats", "gauge", "Seats of a level by its shares.")
        for name, _ in levels:
            yield f'{_PREFIX}nominal_limit_seats{{priority_level="{name}"}} {self._limits[name].nominal}'
        counts = sorted(self._counts.items())
        yield from _family("dispatched_requests_total", "counter", "Requests that were let run.")
        for (schema, level_name), each in counts:
            yield f"{_PREFIX}dispatched_requests_total{_labels(schema, level_name)} {each.dispatched}"
        yield from _family("rejected_requests_total", "counter", "Requests that were turned away.")
        for (schema, level_name), each in counts:
            for reason, number in (
                ("queue-full", each.rejected_full),
                ("concurrency-limit", each.rejected_limit),
                ("time-out", each.rejected_late),
            ):
                if number:
                    yield f"{_PREFIX}rejected_requests_total{_labels(schema, level_name, reason)} {number}"

    def levels(self) -> str:
        """What `/debug/api_priority_and_fairness/dump_priority_levels` shows."""
        lines = ["PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests"]
        for name, level in sorted(self._levels.items()):
            waiting = _waiting(level)
            active = len({number for number, _ in level.queues.waiting()}) if level.queues is not None else 0
            idle = str(not waiting and not level.running).lower()
            lines.append(f"{name}, {active}, {idle}, false, {waiting}, {level.running}")
        return "\n".join(lines) + "\n"


_PREFIX: Final = "apiserver_flowcontrol_"


def _waiting(level: Level) -> int:
    return 0 if level.queues is None else level.queues.length


_GAUGES: Final[Mapping[str, tuple[str, Callable[[Level], float]]]] = {
    "current_executing_requests": ("Requests that run.", lambda level: level.running),
    "current_executing_seats": ("Seats in which requests run.", lambda level: level.running_seats),
    "current_inqueue_requests": ("Requests that wait.", _waiting),
    "current_limit_seats": ("Seats that may run at a time now.", lambda level: level.limit),
    "demand_seats_smoothed": ("Seats that a level is thought to want.", lambda level: level.demand.smoothed),
}


def _family(name: str, type_: str, what: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {what}"
    yield f"# TYPE {_PREFIX}{name} {type_}"


def _labels(schema: str, level: str, reason: str = "") -> str:
    more = f',reason="{reason}"' if reason else ""
    return f'{{flow_schema="{schema}",priority_level="{level}"{more}}}'
