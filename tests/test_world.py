"""Time, chance and identity come from one object: what repeats, what never does, and that nothing goes past it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from navarch.api.meta import new_uid
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.base import Client
from navarch.client.local import LocalTransport
from navarch.client.resources import NAMESPACES
from navarch.store.sqlite import SQLiteStore
from navarch.world import RealWorld

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def check_world() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_world", ROOT / "tools" / "check_world.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stream_repeats_whatever_others_draw() -> None:
    quiet, busy = RealWorld(seed=7), RealWorld(seed=7)
    for _ in range(10):
        busy.random("scheduler", "ties").random()
        busy.random("informer", "pods").random()

    assert quiet.random("informer", "nodes").random() == busy.random("informer", "nodes").random()


def test_a_stream_asked_for_again_goes_on() -> None:
    world = RealWorld(seed=7)

    assert world.random("scheduler").random() != world.random("scheduler").random()


def test_without_a_seed_names_that_come_and_go_leave_no_streams_behind() -> None:
    world, seeded = RealWorld(), RealWorld(1)
    assert len({id(world.identities("uids", f"widgets{number}")) for number in range(100)}) == 1
    assert seeded.identities("uids", "pods") is not seeded.identities("uids", "nodes")


def test_streams_of_two_names_differ() -> None:
    world = RealWorld(seed=7)

    assert world.random("simulated node", "a").random() != world.random("simulated node", "b").random()


def test_what_begins_anew_repeats_its_identifiers_and_what_goes_on_does_not() -> None:
    first, again, later, beside = (RealWorld(seed=7) for _ in range(4))
    later.incarnate(12)
    beside.incarnate(12)

    drawn = [new_uid(world.identities("uids", "pods")) for world in (first, again, later, beside)]

    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


async def test_a_restart_with_the_same_seed_gives_new_uids(tmp_path: Path) -> None:
    async def uids_of_one_run(prefix: str) -> set[str]:
        server = ApiServer(SQLiteStore(tmp_path / "state.db"), world=RealWorld(seed=7))
        await server.start()
        client = Client(LocalTransport(server.as_user(User("admin", ("system:masters",)))))
        made = [
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            for name in (f"{prefix}-1", f"{prefix}-2")
        ]
        await server.stop()
        return {namespace["metadata"]["uid"] for namespace in made}

    first = await uids_of_one_run("first")
    second = await uids_of_one_run("second")

    assert len(first | second) == 4


@pytest.mark.parametrize(
    "line",
    [
        "from datetime import datetime\nx = datetime.now()",
        "import datetime\nx = datetime.datetime.now()",
        "import time\nx = time.time()",
        "import time as t\nx = t.monotonic()",
        "from time import sleep",
        "import random\nx = random.random()",
        "import random\nx = random.Random(1)",
        "from random import choice",
        "import uuid\nx = uuid.uuid4()",
        "from uuid import uuid4",
        "import os\nx = os.urandom(3)",
        "from os import urandom",
        "import secrets\nx = secrets.token_hex()",
        "from datetime import datetime as d\nx = d.now()",
        "from datetime import datetime\nx = field(default_factory=datetime.now)",
        "import datetime as dt\nx = dt.date.today()",
        "import time\nx = time.time_ns()",
        "import time\nx = getattr(time, 'time')()",
        "import time\nclock = time",
        "import random as r\nx = r.choice([1])",
        "from random import SystemRandom as S\nx = S()",
        "import uuid as u\nx = u.uuid1()",
        "import os as o\nx = o.getrandom(3)",
        "import secrets as s\nx = s.choice([1])",
        "import numpy as np\nx = np.random.default_rng()",
        "import importlib\nx = importlib.import_module('random').random()",
        "x = __import__('time').time()",
        "from email.utils import formatdate",
        "import ssl\nx = ssl.RAND_bytes(3)",
        "import asyncio\nx = asyncio.to_thread(f)",
        "import asyncio\nx = asyncio.get_running_loop().run_in_executor(None, f)",
        "from asyncio import to_thread\nx = to_thread(f)",
        "import threading\nx = threading.Thread(target=f)",
        "from concurrent.futures import ThreadPoolExecutor as P\nx = P(1)",
    ],
)
def test_the_check_finds_what_goes_past_the_world(line: str, check_world: ModuleType) -> None:
    for name in ("scheduler/x.py", "apiserver/x.py", "node/engine/x.py"):
        assert list(check_world.violations(ast.parse(line), name)), name


@pytest.mark.parametrize(
    "line",
    [
        "import random\ndef f(source: random.Random) -> float:\n    return source.random()",
        "import uuid\nx = uuid.UUID(int=3)",
        "x = world.random('a').random()",
        "def f(time: float) -> float:\n    return time",
        "import asyncio\nx = asyncio.get_running_loop().time()",
        "import uuid\nx = uuid.uuid5(uuid.NAMESPACE_DNS, 'a')",
        "import threading\nx = threading.Lock()",
        "secrets = {}\nx = secrets.get('a')",
        "from datetime import datetime\nx = datetime.fromisoformat('2026-01-01')",
    ],
)
def test_the_check_lets_the_rest_be(line: str, check_world: ModuleType) -> None:
    assert not list(check_world.violations(ast.parse(line), "scheduler/x.py"))


def test_who_has_threads_of_his_own_has_them_still(check_world: ModuleType) -> None:
    for name, why in check_world.OWN_THREADS.items():
        text = (check_world.SOURCE / name).read_text()
        assert "Thread" in text, f"{name} has none any more: {why}"


def test_nothing_goes_past_the_world(check_world: ModuleType) -> None:
    assert list(check_world.problems()) == []
