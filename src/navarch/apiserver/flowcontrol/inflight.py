"""Without priority and fairness: so many requests at a time that read, so many that write, the others are turned away.

Administrators are not counted (Kubernetes' filter of requests in flight). What lasts by its nature is not, either.
"""

from __future__ import annotations

from collections.abc import Iterator

from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.flowcontrol.control import LONG, Flow
from navarch.apiserver.flowcontrol.levels import Counts, Level
from navarch.apiserver.flowcontrol.matching import Schema
from navarch.apiserver.flowcontrol.seats import LevelConfig
from navarch.apiserver.metrics import ServedLabel
from navarch.apiserver.user import User
from navarch.apiserver.watchcache import WatchCache
from navarch.client.transport import Request
from navarch.world import World

_READING = frozenset({"get", "list", "watch", "head", "options"})


class InFlight:
    """In the place of `FlowControl`; a limit of 0 is none."""

    def __init__(self, world: World, reading: int, writing: int) -> None:
        def flow(name: str, limit: int) -> Flow:
            level = Level(LevelConfig(name, "", limit == 0, 0), limit, world.monotonic)
            return Flow(Schema(name, "", 0, name, "", lambda user, asked: True), level, "", Counts())

        self._exempt, self._reading, self._writing = (
            flow("exempt", 0),
            flow("readOnly", reading),
            flow("mutating", writing),
        )

    def start(self) -> None:
        """Nothing is stored of it."""

    async def stop(self) -> None:
        return

    def flow(self, user: User, verb: str, label: ServedLabel | None, attributes: RequestAttributes) -> Flow | None:
        if attributes.subresource in LONG or verb == "watch":
            return None
        if "system:masters" in user.groups:
            return self._exempt
        return self._reading if verb in _READING else self._writing

    def seats_of_list(self, flow: Flow, request: Request, name: str, cache: WatchCache | None) -> int:
        return 1

    def numbers(self) -> Iterator[str]:
        yield "# HELP apiserver_current_inflight_requests Requests that run now, by whether they write."
        yield "# TYPE apiserver_current_inflight_requests gauge"
        for flow in (self._writing, self._reading):
            kind = flow.level.config.name
            yield f'apiserver_current_inflight_requests{{request_kind="{kind}"}} {flow.level.running}'
