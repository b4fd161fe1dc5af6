"""Sockets outlive the process that served them, and end when nobody comes for them or when they are released."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from navarch.node.dns.sockets import Keeper, Pair, bind

from ...ports import free_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taking sockets from another process needs root")

SERVER = """
import sys, time
from pathlib import Path
from navarch.node.dns.sockets import Keeper, bind
Keeper(Path(sys.argv[1])).keep(bind("127.0.0.1", int(sys.argv[2])))
print("ready", flush=True)
time.sleep(60)
"""


def test_what_is_asked_between_two_servers_reaches_the_second(tmp_path: Path) -> None:
    file, port = tmp_path / "sockets.json", free_port()
    with subprocess.Popen([sys.executable, "-c", SERVER, str(file), str(port)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        first.send_signal(signal.SIGKILL)
        first.wait()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(b"anybody?")
        caller = socket.create_connection(("127.0.0.1", port), timeout=1)

        second = Keeper(file)
        pair = second.take_over("127.0.0.1")
        assert pair is not None
        second.keep(pair)

        data, peer = pair[1].recvfrom(100)
        pair[1].sendto(b"yes: " + data, peer)
        assert client.recv(100) == b"yes: anybody?"
        pair[0].accept()[0].close()
        caller.close()
    second.release()
    for each in pair:
        each.close()
    for fresh in bind("127.0.0.1", port):
        fresh.close()


DYING = """
import os, signal, subprocess, sys
from pathlib import Path
from navarch.node.dns import sockets
keeper = sockets.Keeper(Path(sys.argv[1]))
pair = keeper.take_over("127.0.0.1")
if sys.argv[2] == "while it has them kept":
    # A process has them already, and nothing says which.
    Path.write_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    keeper.keep(pair)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["as soon as it has them", "while it has them kept"])
def test_a_successor_that_dies_while_it_takes_them_over_loses_nothing(tmp_path: Path, when: str) -> None:
    file, port = tmp_path / "sockets.json", free_port()
    first = Keeper(file)
    for each in kept(first, port):
        each.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(b"anybody?")

        died = subprocess.run([sys.executable, "-c", DYING, str(file), when], check=False, timeout=60)
        assert died.returncode == -signal.SIGKILL
        last = Keeper(file)
        pair = last.take_over("127.0.0.1")

        assert pair is not None
        last.keep(pair)
        assert pair[1].recvfrom(100)[0] == b"anybody?"
    for keeper in (last, first):
        keeper.release()
    for each in pair:
        each.close()


def kept(keeper: Keeper, port: int) -> Pair:
    pair = bind("127.0.0.1", port)
    keeper.keep(pair)
    return pair


def test_who_kept_them_before_is_ended_when_somebody_else_does(tmp_path: Path) -> None:
    file, port = tmp_path / "sockets.json", free_port()
    first, second = Keeper(file), Keeper(file)
    pairs = [kept(first, port)]
    before = json.loads(file.read_text())["pid"]

    taken = second.take_over("127.0.0.1")
    assert taken is not None
    assert alive(before)
    second.keep(taken)

    assert first._process is not None
    assert first._process.wait(60) == -signal.SIGKILL
    assert alive(json.loads(file.read_text())["pid"])
    for keeper in (second, first):
        keeper.release()
    for each in (*pairs[0], *taken):
        each.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists()


def test_sockets_of_another_address_are_not_taken(tmp_path: Path) -> None:
    keeper, port = Keeper(tmp_path / "sockets.json"), free_port()
    for each in kept(keeper, port):
        each.close()

    assert keeper.take_over("127.0.0.2") is None
    # Whoever had them is gone by now.
    for each in bind("127.0.0.1", port):
        each.close()


def test_a_number_that_is_another_process_by_now_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sockets.json"
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        file.write_text(json.dumps({"pid": bystander.pid, "started": "1", "stream": 0, "datagrams": 1}))

        assert Keeper(file).take_over("127.0.0.1") is None
        time.sleep(0.05)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
