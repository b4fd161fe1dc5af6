"""One session after the other: clients at work, servers killed by a schedule that a seed repeats, and then the verdict.

The schedule says who is killed and when: so long after its start (it may not be up yet), so long after it was ready, or
at a failpoint's Nth visit. With etcd there may be two API servers, one of which always works on, and etcd itself is
killed, too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..store.etcd_server import Etcd
from . import truth
from .history import Kind, Outcome
from .judging import Fault, judge
from .servers import Nursery, Server
from .watchers import Watcher
from .workload import COLLECTION, Client, Session, act, listed, read_lists, write

SQLITE_POINTS = ("sqlite.write.before", "sqlite.write.after", "sqlite.note.before", "sqlite.note.after")
ETCD_POINTS = ("etcd.commit.before", "etcd.commit.after")
_STARTING_S = 0.7
_FAILPOINT_S = 6.0
_CATCH_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class Kill:
    """`victim`: which server, or -1 for etcd. With `point` it dies there at the latest, at that visit; else `after_s`
    from when it was ready, or from its start if `starting`. It is started again `pause_s` later."""

    victim: int
    after_s: float
    pause_s: float = 0.0
    starting: bool = False
    point: str = ""

    def __str__(self) -> str:
        who = "etcd" if self.victim < 0 else f"server {self.victim}"
        return f"{who} {self.point or f'{self.after_s:.3f} s after ' + ('start' if self.starting else 'ready')}"


def schedule(seed: str, kills: int, servers: int, etcd: bool) -> list[Kill]:
    chance = random.Random(seed)
    planned: list[Kill] = []
    for _ in range(kills):
        victim = chance.randrange(servers)
        if etcd and chance.random() < 0.15:
            victim = -1
        pause_s = chance.choice([0.0, 0.0, chance.random() * 0.5])
        kind = chance.random()
        if victim >= 0 and kind < 0.15:
            planned.append(Kill(victim, chance.random() * _STARTING_S, pause_s, starting=True))
        elif victim >= 0 and kind < 0.5:
            point = chance.choice(ETCD_POINTS if etcd else SQLITE_POINTS)
            planned.append(Kill(victim, _FAILPOINT_S, pause_s, point=f"{point}=kill:{chance.randint(1, 120)}"))
        else:
            planned.append(Kill(victim, chance.random() * 1.2, pause_s))
    return planned


@dataclass(slots=True)
class Counts:
    kills: int = 0
    operations: int = 0
    acknowledged: int = 0
    unknown: int = 0
    lists: int = 0
    events: int = 0
    resumed: int = 0
    begun: int = 0
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.operations} requests ({self.acknowledged} writes acknowledged, "
            f"{self.unknown} without an answer), {self.lists} lists, {self.events} events to watchers that resumed "
            f"{self.resumed} times and began {self.begun} times: {len(self.faults)} faults"
        )


class Run:
    """`folder` holds the servers and what they store; with `etcd` they are over that one, `count` of them."""

    def __init__(self, folder: Path, seed: int, *, etcd: Etcd | None = None, count: int = 1, writers: int = 8) -> None:
        self._seed = seed
        self._etcd = etcd
        store = f"{etcd.url}/crashes" if etcd is not None else "sqlite"
        self._nursery = Nursery()
        first = Server(self._nursery, folder / "server-0", store)
        others = [
            Server(self._nursery, folder / f"server-{number}", store, first.config.pki) for number in range(1, count)
        ]
        self.servers = [first, *others]
        self._store = store
        self._writers = writers
        self._since = 0

    async def start(self) -> None:
        for server in self.servers:
            server.start()
        for server in self.servers:
            assert await server.ready(), server.log.read_text()
        connection = self.servers[0].connection()
        # What was before is not in question, and may be compacted.
        _, found = await connection.ask("GET", f"{COLLECTION}?limit=1")
        self._since = int(found["metadata"]["resourceVersion"])
        connection.close()

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
        self._nursery.close()

    async def session(
        self, number: int, kills: int, counts: Counts, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """Kills so many times, and adds to `counts` what was done and every fault."""
        session = Session(number, keys=4)
        label = f"{self._seed}-{number}"
        work, watchers = self._clients(session, label)
        tasks = [asyncio.create_task(each) for each in work]
        following = [asyncio.create_task(watcher.run()) for watcher in watchers]
        try:
            for at, kill in enumerate(schedule(label, kills, len(self.servers), self._etcd is not None)):
                tell(f"session {number}, kill {at}: {kill}")
                await self._carry_out(kill)
                counts.kills += 1
                if at % 3 == 2:
                    session.renew_keys()
            await self._all_ready()
            session.stopping.set()
            await asyncio.gather(*tasks)
            await self._finish(session, watchers, counts)
        finally:
            for task in [*tasks, *following]:
                task.cancel()
            ended = await asyncio.gather(*tasks, *following, return_exceptions=True)
        broken = [each for each in ended if isinstance(each, Exception)]
        if broken:
            raise broken[0]
        await self._judge(session, counts)

    def _clients(self, session: Session, label: str) -> tuple[list, list[Watcher]]:  # type: ignore[type-arg]
        def client(name: str) -> Client:
            return Client(session, self.servers, random.Random(f"{label}-{name}"))

        work = [write(client(f"writer-{number}"), 0.012) for number in range(self._writers)]
        work += [read_lists(client(f"lister-{number}"), 0.04) for number in range(2)]
        watchers = [Watcher(f"watcher {number}", client(f"watcher-{number}")) for number in range(2)]
        watchers.append(Watcher("streaming watcher", client("streaming"), streams=True))
        watchers.append(Watcher("even watcher", client("even"), parity="even"))
        watchers.append(Watcher("streaming odd watcher", client("odd"), parity="odd", streams=True))
        watchers.append(Watcher("watcher of one", client("one"), key=session.keys[0]))
        return work, watchers

    async def _carry_out(self, kill: Kill) -> None:
        if kill.victim < 0:
            assert self._etcd is not None
            await asyncio.sleep(kill.after_s)
            self._etcd.kill()
            await asyncio.sleep(kill.pause_s)
            self._etcd.start()
            await asyncio.to_thread(self._etcd.wait)
            return
        server = self.servers[kill.victim]
        if kill.starting or kill.point:
            # It is to live from a start, and with a failpoint of its own.
            server.kill()
            server.start(kill.point)
        if kill.starting:
            await asyncio.sleep(kill.after_s)
        elif kill.point:
            await server.ended(kill.after_s)
        else:
            if not server.running:
                server.start()
            assert await server.ready(), server.log.read_text()[-5000:]
            await asyncio.sleep(kill.after_s)
        server.kill()
        await asyncio.sleep(kill.pause_s)
        server.start()

    async def _all_ready(self) -> None:
        for server in self.servers:
            assert await server.ready(), server.log.read_text()[-5000:]

    async def _finish(self, session: Session, watchers: Sequence[Watcher], counts: Counts) -> None:
        """Read everything once more, and let the watchers come to the end."""
        for number, _ in enumerate(self.servers):
            reader = Client(session, self.servers[number : number + 1], random.Random(0))
            for key in {operation.key: None for operation in session.recorder.operations}:
                await act(reader, "get", key)
            await listed(reader)
            reader.close()
        last = await self._write_an_end(session)
        for watcher in watchers:
            # That of one key has no end to come to.
            if not watcher.key and not await _reaches(watcher, last):
                counts.faults.append(Fault("a watcher stands still", f"{watcher.name} at {watcher.reached} of {last}"))

    async def _write_an_end(self, session: Session) -> int:
        """Something that every watcher must be sent; returns its revision."""
        writer = Client(session, self.servers, random.Random(0))
        key = session.keys[0]
        for parity in ("even", "odd"):
            await act(writer, f"apply-{parity}", key)
        writer.close()
        return session.known[key][0]

    async def _judge(self, session: Session, counts: Counts) -> None:
        evidence = session.recorder
        if self._etcd is None:
            rows = await asyncio.to_thread(truth.of_sqlite, self.servers[0].config.database)
        else:
            rows = await truth.of_etcd(self._store, self._since)
        counts.faults += await asyncio.to_thread(judge, evidence, truth.Truth(rows, session.prefix))
        counts.operations += len(evidence.operations)
        writes = [operation for operation in evidence.operations if operation.kind is not Kind.GET]
        counts.acknowledged += sum(operation.outcome is Outcome.DONE for operation in writes)
        counts.unknown += sum(operation.outcome is Outcome.UNKNOWN for operation in writes)
        counts.lists += len(evidence.listings)
        counts.events += sum(len(following.seen) for following in evidence.followings)
        counts.resumed += sum(following.resumed for following in evidence.followings)
        counts.begun += len(evidence.followings)
        connection = self.servers[0].connection()
        await connection.ask("DELETE", COLLECTION)
        connection.close()
        if rows:
            self._since = max(self._since, rows[-1][0])


async def _reaches(watcher: Watcher, revision: int) -> bool:
    deadline = time.monotonic() + _CATCH_UP_S
    while watcher.reached < revision:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def play(
    folder: Path, seed: int, *, kills: int, per_session: int = 20, etcd: Etcd | None = None, servers: int = 1,
    tell: Callable[[str], None] = lambda _: None, until_fault: bool = True,
) -> Counts:  # fmt: skip
    """So many kills, in sessions, until the first that shows a fault."""
    counts = Counts()
    run = Run(folder, seed, etcd=etcd, count=servers)
    try:
        await run.start()
        number = 0
        while counts.kills < kills and not (until_fault and counts.faults):
            number += 1
            await run.session(number, min(per_session, kills - counts.kills), counts, tell)
            tell(f"session {number}: {counts}")
    finally:
        run.stop()
    return counts
