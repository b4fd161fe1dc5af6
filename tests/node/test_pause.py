"""The pause program: a valid executable for both architectures, that reaps children and ends when told to."""

from __future__ import annotations

import platform
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from navarch.node.images.archives import read_layout
from navarch.node.pause import PAUSE_IMAGE, pause_program, write_pause_image


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_program_is_a_static_executable(architecture: str, machine: int) -> None:
    program = pause_program(architecture)

    assert program[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<HH", program, 16) == (2, machine)
    entry, first_segment = struct.unpack_from("<QQ", program, 24)
    assert (entry, first_segment) == (0x400000 + 120, 64)
    assert struct.unpack_from("<QQ", program, 64 + 32) == (len(program), len(program))


@pytest.fixture
def pause(tmp_path: Path) -> Path:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    if architecture is None:
        pytest.skip("no pause program for this machine")
    path = tmp_path / "pause"
    path.write_bytes(pause_program(architecture))
    path.chmod(0o755)
    return path


def _listens(pid: int) -> bool:
    """Whether the process has arrived where it waits for signals (rt_sigtimedwait)."""
    number = {"x86_64": "128", "aarch64": "137"}[platform.machine()]
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] == number


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_and_ends_when_told(pause: Path, number: signal.Signals) -> None:
    with subprocess.Popen([pause]) as process:
        _until(lambda: _listens(process.pid))
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(5) == 0


def test_it_reaps_children(pause: Path) -> None:
    # The shell starts a child, and becomes the pause program before the child ends.
    with subprocess.Popen(
        ["sh", "-c", f"sleep 0.2 & echo $!; exec {pause}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        deadline = time.monotonic() + 5
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        gone = not Path(f"/proc/{child}").exists()
        process.terminate()
    assert gone


def test_the_image_is_for_both_architectures(tmp_path: Path) -> None:
    write_pause_image(tmp_path / "a.tar")
    write_pause_image(tmp_path / "b.tar")

    top, _ = read_layout(tmp_path / "a.tar")
    assert top["annotations"]["io.containerd.image.name"] == PAUSE_IMAGE
    assert top["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert top["digest"] == read_layout(tmp_path / "b.tar")[0]["digest"]
